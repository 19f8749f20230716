"""Records of a batch: taken out with key, value and headers as they are, and put into another.

Layout: https://kafka.apache.org/documentation/#record
"""

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.errors import BackupError
from pipeline.kafka.log.batches import HEADER, MAGIC, Batch, Codec, packed
from pipeline.kafka.log.codecs import compress, decompress

NO_TIMESTAMP = -1


class Record(NamedTuple):
    """One record; `body` is its key, value and headers as they lie in the batch."""

    offset: int
    timestamp: int
    body: bytes


def unpacked(batch: Batch, data: bytes | memoryview, where: str) -> list[Record]:
    """Records of a whole batch, with the time that consumers see.

    Raises BackupError when they are not what the header says.
    """
    try:
        content = decompress(batch.codec, data[HEADER.size : batch.size])
        return _records(batch, content)
    except (ValueError, IndexError) as error:
        raise BackupError(f"{where}, offset {batch.base_offset}: its records: {error}") from error


def _records(batch: Batch, content: bytes) -> list[Record]:
    found, at = [], 0
    for _ in range(batch.records):
        size, at = varint(content, at)
        end = at + size
        if size < 0 or end > len(content):
            raise ValueError(f"one of {size} bytes, {len(content) - at} are left")
        later, at = varint(content, at + 1)  # behind the attributes, of which there are none
        delta, at = varint(content, at)
        time = batch.max_timestamp if batch.append_time else batch.base_timestamp + later
        found.append(Record(batch.base_offset + delta, time, content[at:end]))
        at = end
    if at != len(content):
        raise ValueError(f"{len(content) - at} bytes too many")
    return found


def encoded(records: Sequence[Record], codec: Codec) -> bytes:
    """Pack these records into a batch that begins at the first and knows no producer."""
    first, times = records[0], [record.timestamp for record in records]
    content = bytearray()
    for number, (_, time, body) in enumerate(records):
        record = b"\0" + zigzag(time - first.timestamp) + zigzag(number) + body
        content += zigzag(len(record)) + record
    header = Batch(
        base_offset=first.offset,
        length=0,
        leader_epoch=-1,
        magic=MAGIC,
        crc=0,
        attributes=codec,
        last_offset_delta=len(records) - 1,
        base_timestamp=first.timestamp,
        max_timestamp=max(times),
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        records=len(records),
    )
    return packed(header, compress(codec, bytes(content)))


def runs(records: Sequence[Record]) -> list[list[Record]]:
    """Part them where an offset is missing: brokers refuse a batch with a hole inside."""
    found: list[list[Record]] = []
    for record in records:
        if found and found[-1][-1].offset + 1 == record.offset:
            found[-1].append(record)
        else:
            found.append([record])
    return found


def key_and_value(body: bytes) -> tuple[bytes | None, bytes | None]:
    """Take out what a batch holds of a record behind its offset, without its headers."""
    key, at = part(body, 0)
    return key, part(body, at)[0]


def part(body: bytes, at: int) -> tuple[bytes | None, int]:
    """Take out the key, value or content of a header that begins at `at`, and tell its end."""
    size, at = varint(body, at)
    return (None, at) if size < 0 else (body[at : at + size], at + size)


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that is written at `at`, and where it ends. Raises ValueError or IndexError."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7
        if shift > 63:
            raise ValueError(f"a number without an end at byte {at}")


def zigzag(value: int) -> bytes:
    """Write a number as `varint` reads it."""
    value = (value << 1) ^ (value >> 63)
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
