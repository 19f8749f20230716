"""Segments of WAL as far as their first bytes: what an archive may ask of them."""

import struct

SIZE = 1 << 20


def segment_bytes(name: str, server: int, records: bytes = b"", size: int = SIZE) -> bytes:
    """What begins as PostgreSQL's segment of that name does."""
    position = (int(name[8:16], 16) << 32) + int(name[16:24], 16) * size
    header = struct.pack("=HHIQI4xQII", 0xD118, 2, 1, position, 0, server, size, 8192)
    return (header + records).ljust(size, b"\0")
