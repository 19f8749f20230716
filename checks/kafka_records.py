"""Records of an archive for who judges them: key, value, headers, digest, partitioner."""

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pipeline.kafka.archive.reading import Archived
from pipeline.kafka.log.batches import walk
from pipeline.kafka.log.gaps import Reason
from pipeline.kafka.log.records import Record, part, unpacked, varint

_LENGTH = struct.Struct(">i")


class Fields(NamedTuple):
    """What a consumer gets of a record."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[bytes, bytes | None], ...]


def fields(body: bytes) -> Fields:
    """Take apart what a batch holds of a record behind its offset."""
    key, at = part(body, 0)
    value, at = part(body, at)
    count, at = varint(body, at)
    headers = []
    for _ in range(count):
        name, at = part(body, at)
        content, at = part(body, at)
        headers.append((name or b"", content))
    return Fields(key, value, tuple(headers))


def fingerprint(body: bytes) -> str:
    """The digest that a backup of groups notes of a record (pipeline.kafka.groups.surroundings)."""
    digest, of = hashlib.sha256(), fields(body)
    parts = [of.key, of.value, *(each for header in of.headers for each in header)]
    for each in parts:
        digest.update(_LENGTH.pack(-1 if each is None else len(each)))
        digest.update(each or b"")
    return digest.hexdigest()


def seen(partition: Archived, first: int = 0, end: int | None = None) -> Iterator[Record]:
    """Records of [first, end) that a read_committed consumer gets, in order."""
    for piece in partition.pieces(first, end):
        aborted = [gap for gap in piece.content.gaps if gap.reason is Reason.ABORTED]
        for block in piece.blocks:
            for batch, view in walk(block, str(partition.index)):
                hidden = batch.control or any(
                    gap.first <= batch.base_offset < gap.end for gap in aborted
                )
                if hidden:
                    continue
                for record in unpacked(batch, view, str(partition.index)):
                    inside = first <= record.offset and (end is None or record.offset < end)
                    if inside and record.offset >= partition.index.start:
                        yield record


def murmur2(key: bytes) -> int:
    """The hash of Kafka's own default partitioner, its sign bit cleared."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    value = (0x9747B28C ^ len(key)) & mask
    whole = len(key) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(key[at : at + 4], "little") * m & mask
        value = (value * m & mask) ^ ((k ^ k >> 24) * m & mask)
    if tail := key[whole:]:
        value = (value ^ int.from_bytes(tail, "little")) * m & mask
    value = (value ^ value >> 13) * m & mask
    return (value ^ value >> 15) & 0x7FFFFFFF


PARTITIONERS: dict[str, Callable[[bytes], int]] = {"murmur2": murmur2, "crc32": zlib.crc32}
"""Kafka's own default and librdkafka's; both take the remainder by the number of partitions."""
