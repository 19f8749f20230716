"""Segments of WAL as far as their first bytes: what an archive may ask of them."""

import struct

SIZE = 1 << 20


def segment_bytes(name: str, server: int, records: bytes = b"") -> bytes:
    """What begins as PostgreSQL's segment of that name does."""
    position = int(name[16:24], 16) * SIZE
    header = struct.pack("=HHIQI4xQII", 0xD118, 2, 1, position, 0, server, SIZE, 8192)
    return (header + records).ljust(SIZE, b"\0")
