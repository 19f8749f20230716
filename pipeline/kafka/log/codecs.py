"""Compressed records of a batch, in the framings that Kafka's clients expect."""

import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO

import cramjam
import zstandard

from pipeline.kafka.log.batches import Codec

_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEADER = _XERIAL + struct.pack(">ii", 1, 1)
_XERIAL_BLOCK = 32 << 10
_LZ4_HEADER = bytes.fromhex("04224d18604082")
"""Independent blocks of at most 64 KiB, no checksums; the last byte is the header's own."""
_LZ4_BLOCK, _LZ4_RAW = 64 << 10, 1 << 31
_GZIP = 31  # zlib's window bits for a gzip header
_LENGTH, _LITTLE = struct.Struct(">i"), struct.Struct("<I")


def decompress(codec: Codec, data: bytes | memoryview) -> bytes:
    """Records as they were before a producer compressed them. Raises ValueError."""
    try:
        return _DECOMPRESS[codec](bytes(data))
    except (zlib.error, zstandard.ZstdError, cramjam.DecompressionError, struct.error) as error:
        raise ValueError(f"{codec.name.lower()}: {error}") from error


def compress(codec: Codec, data: bytes) -> bytes:
    """Records as a producer with that codec would send them."""
    return _COMPRESS[codec](data)


def _same(data: bytes) -> bytes:
    return data


def _ungzip(data: bytes) -> bytes:
    return zlib.decompress(data, _GZIP)


def _gzip(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=_GZIP)
    return packer.compress(data) + packer.flush()


def _unsnappy(data: bytes) -> bytes:
    if not data.startswith(_XERIAL):
        return bytes(cramjam.snappy.decompress_raw(data))
    whole, at = [], len(_XERIAL_HEADER)
    while at < len(data):
        (size,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        whole.append(bytes(cramjam.snappy.decompress_raw(data[at : at + size])))
        at += size
    return b"".join(whole)


def _snappy(data: bytes) -> bytes:
    packed = (bytes(cramjam.snappy.compress_raw(part)) for part in _parts(data, _XERIAL_BLOCK))
    return _XERIAL_HEADER + b"".join(_LENGTH.pack(len(part)) + part for part in packed)


def _unlz4(data: bytes) -> bytes:
    return bytes(cramjam.lz4.decompress(data))


def _lz4(data: bytes) -> bytes:
    """Brokers refuse blocks that refer to each other, which libraries write by default."""
    whole = [_LZ4_HEADER]
    for part in _parts(data, _LZ4_BLOCK):
        packed = bytes(cramjam.lz4.compress_block(part, store_size=False))
        if len(packed) < len(part):
            whole += [_LITTLE.pack(len(packed)), packed]
        else:
            whole += [_LITTLE.pack(len(part) | _LZ4_RAW), part]
    return b"".join([*whole, _LITTLE.pack(0)])


def _unzstd(data: bytes) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(BytesIO(data), read_across_frames=True) as all_:
        return bytes(all_.read())


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def _parts(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


_DECOMPRESS: dict[Codec, Callable[[bytes], bytes]] = {
    Codec.NONE: _same,
    Codec.GZIP: _ungzip,
    Codec.SNAPPY: _unsnappy,
    Codec.LZ4: _unlz4,
    Codec.ZSTD: _unzstd,
}
_COMPRESS: dict[Codec, Callable[[bytes], bytes]] = {
    Codec.NONE: _same,
    Codec.GZIP: _gzip,
    Codec.SNAPPY: _snappy,
    Codec.LZ4: _lz4,
    Codec.ZSTD: _zstd,
}
