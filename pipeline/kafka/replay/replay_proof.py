"""A replayed partition, read back raw and compared with the archive, batch by batch."""

import hashlib
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from crc32c import crc32c

from pipeline.errors import BackupError, TargetSpoilt
from pipeline.kafka.archive.reading import Archived
from pipeline.kafka.cluster.raw_produce import RawWriter
from pipeline.kafka.log.batches import HEADER, Batch, check_crc, walk
from pipeline.kafka.log.place import Place
from pipeline.kafka.log.records import unpacked
from pipeline.kafka.replay.replay_plan import PartitionPlan
from pipeline.kafka.replay.replay_units import Unit, units

_LEAF = struct.Struct(">qiqI")


class Proven(NamedTuple):
    """What was read back and found equal.

    `digest` is SHA-256 over each batch's offset, records, base time and the CRC-32C of its payload.
    `older` counts the records, and their bytes, that the topic's retention would delete now.
    """

    partition: int
    start: int
    end: int
    records: int
    bytes: int
    rewritten: int
    digest: str
    older: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        anew = f", {self.rewritten:,} of them in batches written anew" if self.rewritten else ""
        return (
            f"[{self.partition}] proven: offsets {self.start:,} to {self.end:,}, "
            f"{self.records:,} records in {self.bytes:,} bytes{anew}, digest {self.digest[:16]}"
        )


def prove(
    reader: RawWriter,
    place: Place,
    archived: Archived,
    plan: PartitionPlan,
    keeps: timedelta | None,
) -> Proven:
    """Read the partition back. Raises TargetSpoilt at the first thing that differs."""
    start, end = reader.bounds(place)
    expected_end = plan.end if not plan.dense else None
    if plan.head and start != plan.start:
        raise TargetSpoilt(f"{place}: its log starts at {start}, expected {plan.start}")
    if expected_end is not None and end != expected_end:
        raise TargetSpoilt(f"{place}: it ends at {end}, expected {expected_end}")
    found = _batches(reader, place, plan.start, end)
    digest, position = hashlib.sha256(), plan.start
    records = size = rewritten = 0
    older = [0, 0]
    oldest = _before(keeps)
    for unit in units(archived, plan.first, plan.end, dense=plan.dense):
        target = position if plan.dense else unit.first
        try:
            batch, view = next(found)
        except StopIteration:
            raise TargetSpoilt(f"{place}: nothing is at {target}, expected a batch") from None
        if problem := differs(unit, target, (batch, view)):
            raise TargetSpoilt(f"{place}, offset {batch.base_offset}: {problem}")
        digest.update(
            _LEAF.pack(target, unit.batch.records, batch.base_timestamp, crc32c(unit.payload))
        )
        position = target + unit.batch.records
        records, size = records + unit.batch.records, size + batch.size
        rewritten += unit.batch.records if unit.records is not None else 0
        if batch.max_timestamp < oldest:
            older = [older[0] + unit.batch.records, older[1] + batch.size]
    _expect_nothing_more(place, found, position, end if plan.dense else position)
    seen = digest.hexdigest()
    return Proven(plan.partition, start, end, records, size, rewritten, seen, (older[0], older[1]))


def differs(unit: Unit, target: int, found: tuple[Batch, memoryview]) -> str | None:
    """Tell how a batch differs from what was to be there, for whoever consumes it."""
    batch, view = found
    at = (batch.base_offset, batch.records, batch.next_offset)
    if at != (expected := (target, unit.batch.records, target + unit.batch.records)):
        return f"offset, records and end are {at}, expected {expected}"
    if batch.control or batch.transactional or batch.append_time or batch.delete_horizon:
        return f"its attributes are {batch.attributes:#x}, expected the codec alone"
    if batch.codec is not unit.batch.codec:
        return f"codec {batch.codec.name}, expected {unit.batch.codec.name}"
    if unit.records is not None:
        return _records_differ(unit, batch, view)
    if batch.base_timestamp != unit.batch.base_timestamp:
        return f"base time {batch.base_timestamp}, expected {unit.batch.base_timestamp}"
    return None if view[HEADER.size :] == unit.payload else "keys, values or headers differ"


def _records_differ(unit: Unit, batch: Batch, view: memoryview) -> str | None:
    """Of a batch written anew every record is compared with the archived one."""
    here = unpacked(batch, view, "read back")
    for wanted, got in zip(unit.records or (), here, strict=True):
        if (wanted.timestamp, wanted.body) != (got.timestamp, got.body):
            return f"the record at {got.offset} differs from that archived at {wanted.offset}"
    return None


def _batches(
    reader: RawWriter, place: Place, start: int, end: int
) -> Iterator[tuple[Batch, memoryview]]:
    """Everything but markers; all of it is decided."""
    for fetched in reader.batches(place, start, end):
        if fetched.last_stable != fetched.high_watermark or fetched.aborted:
            raise TargetSpoilt(
                f"{place}: decided up to {fetched.last_stable} of {fetched.high_watermark}, "
                f"{len(fetched.aborted)} aborted: a consumer would not see all of it"
            )
        for batch, view in walk(fetched.data, str(place)):
            try:
                check_crc(batch, view, str(place))
            except BackupError as error:
                raise TargetSpoilt(str(error)) from error
            if not batch.control:
                yield batch, view


def _expect_nothing_more(
    place: Place, found: Iterator[tuple[Batch, memoryview]], position: int, end: int
) -> None:
    if (more := next(found, None)) is not None:
        raise TargetSpoilt(f"{place}: a batch at {more[0].base_offset} is not from the archive")
    if position != end:
        raise TargetSpoilt(f"{place}: it ends at {end}, expected {position}")


def _before(keeps: timedelta | None) -> int:
    """Milliseconds before which retention deletes; nothing where it keeps all."""
    if keeps is None:
        return -(1 << 63)
    return int((datetime.now(UTC) - keeps).timestamp() * 1000)
