"""Archived ranges beside the topics that they were read from, batch by batch.

Whoever changed a batch before it was hashed has every digest agree with it: the broker's own log is
the only witness, as long as it holds the offsets. Compaction takes records away and never adds or
changes one, so what is left of a compacted topic is compared.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from checks.kafka_records import fields
from pipeline.errors import BackupError
from pipeline.kafka.archive import segments
from pipeline.kafka.archive.segments import Index, Segment
from pipeline.kafka.cluster.raw import RawReader
from pipeline.kafka.cluster.topics import Extent
from pipeline.kafka.log.batches import Batch, marker, walk
from pipeline.kafka.log.gaps import Aborted
from pipeline.kafka.log.place import Place
from pipeline.kafka.log.records import Record, unpacked
from pipeline.repository.store import Store

Held = tuple[Batch, memoryview]
_CLEANED = 0x47
"""Attributes that the cleaner may change: the codec, and whether there is a delete horizon."""
_FIELDS = (
    "leader_epoch",
    "attributes",
    "last_offset_delta",
    "producer_id",
    "producer_epoch",
    "base_sequence",
)
_ALSO = ("records", "base_timestamp", "max_timestamp")
"""What stays as well, unless the cleaner took records away."""


class Range(NamedTuple):
    """A segment, and the partition that it is a part of."""

    of: Index
    segment: Segment

    def __str__(self) -> str:
        return f"{self.of}: offsets {self.segment.first} to {self.segment.end - 1}"


def chosen(indexes: Iterable[Index], day: int, at_most: int) -> list[Range]:
    """A share of all segments of about `at_most` bytes: another one each day, in turn.

    Every segment's turn comes once in as many days as there are shares.
    """
    ranges = [Range(index, each) for index in indexes for each in index.segments if each.batches]
    ranges.sort(key=lambda each: hashlib.sha256(each.segment.key.encode()).digest())
    shares = -(-sum(each.segment.bytes for each in ranges) // at_most)
    shares = max(1, min(shares, len(ranges)))
    return ranges[day % shares :: shares]


def archived(store: Store, segment: Segment) -> Iterator[Held]:
    """What a segment holds; BackupError where it cannot be taken apart."""
    with store.open(segment.key) as stored:
        for block in segments.blocks(stored, segment.key):
            yield from walk(block, segment.key)


class Comparison:
    """One range read once more from its leader."""

    def __init__(self, reader: RawReader, place: Place, extent: Extent, *, compacted: bool) -> None:
        self._reader, self._place, self._extent = reader, place, extent
        self._compacted = compacted

    def differences(
        self, segment: Segment, ours: Iterator[Held], aborted: Sequence[Aborted]
    ) -> Iterator[tuple[int, str]]:
        """Offsets at which archive and topic differ, and in what.

        Raises OffsetGone when the log lost the range meanwhile, ServerError when nobody answers.
        """
        if (end := self._extent.high_watermark) < segment.end:
            yield end, f"the topic ends here, archived are offsets up to {segment.end - 1}"
        told = set[Aborted]()
        yield from self._merged(ours, self._read(segment, told))
        if not self._compacted and self._extent.start <= segment.first:
            inside = range(segment.first, segment.end)
            noted = {each for each in aborted if each.first_offset in inside}
            for each in sorted(noted ^ {one for one in told if one.first_offset in inside}):
                who = "archive" if each in noted else "broker"
                yield (
                    each.first_offset,
                    f"only the {who} calls this transaction of producer {each.producer_id} aborted",
                )

    def _read(self, segment: Segment, aborted: set[Aborted]) -> Iterator[Held]:
        first = max(segment.first, self._extent.start)
        end = min(segment.end, self._extent.high_watermark)
        for fetched in self._reader.batches(self._place, first, end):
            aborted |= set(fetched.aborted)
            yield from walk(fetched.data, str(self._place))

    def _merged(self, ours: Iterator[Held], theirs: Iterator[Held]) -> Iterator[tuple[int, str]]:
        one, other = next(ours, None), next(theirs, None)
        while one or other:
            if one and (other is None or one[0].base_offset < other[0].base_offset):
                if not (self._compacted or one[0].next_offset <= self._extent.start):
                    yield one[0].base_offset, "the topic does not hold this batch"
                one = next(ours, None)
            elif other and (one is None or other[0].base_offset < one[0].base_offset):
                yield other[0].base_offset, "the archive does not hold this batch"
                other = next(theirs, None)
            elif one and other:
                if one[1] != other[1] and (problem := self._differ(one, other)):
                    yield one[0].base_offset, problem
                one, other = next(ours, None), next(theirs, None)

    def _differ(self, ours: Held, theirs: Held) -> str | None:
        """Name the fields that differ; None where only the cleaner was there."""
        names = _FIELDS if self._compacted else _FIELDS + _ALSO
        one, other = (
            each._replace(attributes=each.attributes & ~(_CLEANED if self._compacted else 0))
            for each in (ours[0], theirs[0])
        )
        found = [
            f"{name.replace('_', ' ')}: archived is {was}, the topic holds {now}"
            for name in names
            if (was := getattr(one, name)) != (now := getattr(other, name))
        ]
        try:
            found += self._contents(ours, theirs)
        except BackupError as error:
            found.append(str(error))
        if not (found or self._compacted):
            found.append("its bytes differ")
        return "; ".join(found) or None

    def _contents(self, ours: Held, theirs: Held) -> Iterator[str]:
        where = str(self._place)
        if theirs[0].control or ours[0].control:
            was, now = marker(*ours, where), marker(*theirs, where)
            if was is not now:
                yield f"marker: archived is {was.name}, the topic holds {now.name}"
            return
        held = {record.offset: record for record in unpacked(*ours, where)}
        for now_record in unpacked(*theirs, where):
            if (problem := _record(held.pop(now_record.offset, None), now_record)) is not None:
                yield problem
                return
        if held and not self._compacted:
            yield f"the topic does not hold the record at {min(held)}"


def _record(archived: Record | None, live: Record) -> str | None:
    if archived is None:
        return f"the archive does not hold the record at {live.offset}"
    was, now = fields(archived.body), fields(live.body)
    parts = [name for name in now._fields if getattr(was, name) != getattr(now, name)]
    if archived.timestamp != live.timestamp:
        parts.append(f"time ({archived.timestamp}, the topic holds {live.timestamp})")
    return f"the record at {live.offset} differs in {', '.join(parts)}" if parts else None
