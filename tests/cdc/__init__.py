"""Change data capture on real servers: needs the `stack` fixture."""
