"""Zstandard, for what is stored as a stream."""

from collections.abc import Iterable, Iterator

import zstandard


def packed(blocks: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Compress blocks into one stream, with a checksum at its end."""
    packer = zstandard.ZstdCompressor(level=1, write_checksum=True).compressobj()
    for block in blocks:
        if ready := packer.compress(block):
            yield ready
    yield packer.flush()
