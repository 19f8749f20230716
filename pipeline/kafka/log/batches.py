"""Record batches of format 2, as brokers hold them: 61 bytes of header, then the records.

Layout and attributes: https://kafka.apache.org/documentation/#recordbatch
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple
from zlib import crc32

from crc32c import crc32c

from pipeline.errors import BackupError

HEADER = struct.Struct(">qiibIhiqqqhii")
MAGIC = 2
_BEFORE_LENGTH = 12  # base offset and length itself are not counted by the length
_COVERED_FROM = 21  # the CRC covers attributes to end; what is before it a broker may rewrite
_SMALLEST = HEADER.size - _BEFORE_LENGTH
_MAGIC_AT = 16  # of every format: what lies before differs in meaning only
_OLD_CRC = struct.Struct(">I")
_LENGTH = struct.Struct(">i")
_MARKER_KEY = struct.Struct(">hh")


OLD = frozenset({0, 1})
"""Formats of messages before Kafka 0.11: no batches, and no header like ours."""


class OldFormat(BackupError):
    """What stands there is sound, but of a format that cannot be brought back."""


class Codec(IntEnum):
    """How the records are compressed, by its number in the attributes."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


class Marker(IntEnum):
    """How a transaction ended, by the type in its control record."""

    ABORT = 0
    COMMIT = 1


class Batch(NamedTuple):
    """A header, field by field in the order of its bytes."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records: int

    @property
    def size(self) -> int:
        """Bytes of header and records."""
        return self.length + _BEFORE_LENGTH

    @property
    def next_offset(self) -> int:
        """Where the log goes on: not behind the last record, which compaction may have removed."""
        return self.base_offset + self.last_offset_delta + 1

    @property
    def codec(self) -> Codec:
        return Codec(self.attributes & 0x07)

    @property
    def append_time(self) -> bool:
        """Whether the broker stamped the records, all with the maximum."""
        return bool(self.attributes & 0x08)

    @property
    def transactional(self) -> bool:
        return bool(self.attributes & 0x10)

    @property
    def control(self) -> bool:
        return bool(self.attributes & 0x20)

    @property
    def delete_horizon(self) -> bool:
        """Whether the base timestamp says when the cleaner may drop tombstones (KIP-534)."""
        return bool(self.attributes & 0x40)

    @property
    def missing(self) -> int:
        """Offsets inside the batch that compaction has emptied."""
        return self.last_offset_delta + 1 - self.records


def walk(
    data: bytes | memoryview, where: str, *, cut: bool = False
) -> Iterator[tuple[Batch, memoryview]]:
    """Each batch with its bytes, headers checked, CRC not.

    With `cut` the last batch may be incomplete and is left out, as in an answer to a fetch.
    Raises OldFormat or BackupError, naming the byte, when what stands there is no batch of format
    2.
    """
    view, at = memoryview(data), 0
    while at < len(view):
        left = len(view) - at
        length = _LENGTH.unpack_from(view, at + 8)[0] if left >= _BEFORE_LENGTH else _SMALLEST
        old = left > _MAGIC_AT and view[at + _MAGIC_AT] in OLD
        if old and _is_message(view[at:], length):
            raise OldFormat(f"{where}, byte {at}: {_old(view[at + _MAGIC_AT])}")
        if length < _SMALLEST:
            raise BackupError(f"{where}, byte {at}: batch length {length} is below {_SMALLEST}")
        if length + _BEFORE_LENGTH > left:
            if cut:
                return
            raise BackupError(f"{where}, byte {at}: the batch is cut, {left} bytes are left of it")
        batch = Batch._make(HEADER.unpack_from(view, at))
        if problem := _implausible(batch):
            raise BackupError(f"{where}, byte {at}: {problem}")
        yield batch, view[at : at + batch.size]
        at += batch.size


def _is_message(view: memoryview, length: int) -> bool:
    """Whether a sound message of before batches stands there: its CRC-32 covers all behind it."""
    message = view[_MAGIC_AT : length + _BEFORE_LENGTH]
    whole = len(message) == length - _OLD_CRC.size
    return whole and crc32(message) == _OLD_CRC.unpack_from(view, _BEFORE_LENGTH)[0]


def _old(magic: int) -> str:
    return (
        f"records of message format {magic}, which only brokers before 4.0 hold and no newer one "
        "takes: not archived. Copy them into a topic that a client of today writes (MirrorMaker 2, "
        "or consume and produce), or let retention delete them, then archive again"
    )


def _implausible(batch: Batch) -> str | None:
    if batch.magic != MAGIC:
        return f"batch format {batch.magic}, expected {MAGIC}"
    if batch.attributes & 0x07 > max(Codec):
        return f"codec {batch.attributes & 0x07} is unknown"
    if batch.base_offset < 0 or not 0 <= batch.records <= batch.last_offset_delta + 1:
        return (
            f"{batch.records} records in offsets {batch.base_offset} to {batch.next_offset - 1} "
            "cannot be"
        )
    return None


def check_crc(batch: Batch, data: memoryview, where: str) -> None:
    """Raise BackupError unless the CRC-32C fits attributes, counts and records."""
    if (found := crc32c(data[_COVERED_FROM:])) != batch.crc:
        raise BackupError(
            f"{where}, offset {batch.base_offset}: CRC-32C is {found:08x}, "
            f"the batch says {batch.crc:08x}"
        )


def packed(batch: Batch, body: bytes | memoryview) -> bytes:
    """Bytes of a batch with its length and CRC computed, whatever `batch` says of them."""
    sized = batch._replace(length=_SMALLEST + len(body), crc=0)
    crc = crc32c(body, crc32c(HEADER.pack(*sized)[_COVERED_FROM:]))
    return b"".join((HEADER.pack(*sized._replace(crc=crc)), body))


def marker(batch: Batch, data: memoryview, where: str) -> Marker:
    """How the transaction ended: control batches hold one record, keyed (version, type)."""
    at = HEADER.size
    try:
        for field in ("length", "attributes", "timestamp", "offset", "key length"):
            at = at + 1 if field == "attributes" else _after_varint(data, at)
        return Marker(_MARKER_KEY.unpack_from(data, at)[1])
    except (IndexError, struct.error, ValueError) as error:
        raise BackupError(
            f"{where}, offset {batch.base_offset}: not a transaction marker ({error})"
        ) from error


def _after_varint(data: memoryview, at: int) -> int:
    while data[at] & 0x80:
        at += 1
    return at + 1
