"""Slots, publications, connectors and offsets as one state: read, kept, and named."""
