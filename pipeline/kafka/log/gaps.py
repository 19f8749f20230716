"""Offsets that hold no record a consumer sees, each with the reason why."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from heapq import heappop, heappush
from typing import NamedTuple

from pipeline.kafka.log.batches import Batch, Marker


class Reason(StrEnum):
    """Why there is no record; the first four are how Kafka works, the last is damage."""

    MARKER = "transaction marker"
    ABORTED = "aborted"
    COMPACTED = "compacted"
    DELETED = "deleted by retention"
    LOST = "LOST"


class Aborted(NamedTuple):
    """A transaction that was aborted: who wrote it, and where it begins in this partition."""

    producer_id: int
    first_offset: int


class Gap(NamedTuple):
    """`offsets` of [first, end) hold no record; all of them, except inside a compacted batch."""

    first: int
    end: int
    reason: Reason
    offsets: int


class Gaps:
    """Classifies the offsets of one partition while its batches pass, in order."""

    def __init__(self, first: int, *, compacted: bool, aborted: Collection[Aborted] = ()) -> None:
        self.found: list[Gap] = []
        self.position = first
        self._hole = Reason.COMPACTED if compacted else Reason.LOST
        self._undecided: list[tuple[int, int]] = []
        self._aborting: dict[int, int] = {}
        self._touched: set[Aborted] = set()
        self._writing = {each.producer_id for each in aborted if each.first_offset < first}
        self.learn(aborted)

    def learn(self, aborted: Iterable[Aborted]) -> None:
        """Take in transactions that a broker names while their batches arrive."""
        for told in aborted:
            heappush(self._undecided, (told.first_offset, told.producer_id))

    def deleted_until(self, log_start: int) -> None:
        """Retention was faster than the reader: the log begins later now."""
        self._add(self.position, log_start, Reason.DELETED)
        self.position = log_start
        self._writing.clear()  # their markers may have gone

    def see(self, batch: Batch, ended: Marker | None) -> str | None:
        """Account for a batch; `ended` tells what a control batch says.

        Returns how that contradicts the list of aborted transactions, or None.
        """
        if batch.base_offset > self.position:
            self._add(self.position, batch.base_offset, self._hole)
            if self._hole is Reason.LOST:
                self._writing.clear()
        if self._undecided:
            self._begin_until(batch.next_offset - 1)
        first = max(batch.base_offset, self.position)  # DeleteRecords may cut into a batch
        self.position = batch.next_offset
        if batch.control:
            self._add(first, batch.next_offset, Reason.MARKER)
            return self._end(batch, ended)
        if batch.transactional:
            self._writing.add(batch.producer_id)
        if batch.transactional and batch.producer_id in self._aborting:
            self._add(first, batch.next_offset, Reason.ABORTED)
        elif batch.missing:  # brokers refuse such a batch from a producer: the cleaner made it
            self._add(first, batch.next_offset, Reason.COMPACTED, batch.missing)
        return None

    def _end(self, batch: Batch, ended: Marker | None) -> str | None:
        """End a transaction. One without a batch here is in no list; the cleaner leaves its marker.

        As long as it leaves a batch of it, the marker stays and is as the list says.
        """
        if ended is None:
            return None
        aborted = self._aborting.pop(batch.producer_id, None) is not None
        began = batch.producer_id in self._writing
        self._writing.discard(batch.producer_id)
        if not began or aborted == (ended is Marker.ABORT):
            return None
        return (
            f"the marker at {batch.base_offset} says {ended.name} of a transaction of producer "
            f"{batch.producer_id} that {'is' if aborted else 'is not'} listed as aborted"
        )

    def cut(self, end: int) -> tuple[tuple[Gap, ...], tuple[Aborted, ...]]:
        """All gaps since the last cut, and the aborted transactions that had a part in them.

        The log goes on behind `end`, and so may a transaction.
        """
        if self.position < end:
            self._add(self.position, end, self._hole)
            self.position = end
        self._begin_until(end - 1)
        gaps, aborted = tuple(self.found), tuple(sorted(self._touched, key=lambda t: t[::-1]))
        self.found = []
        self._touched = {Aborted(*open_) for open_ in self._aborting.items()}
        return gaps, aborted

    def _begin_until(self, offset: int) -> None:
        """Note who is in a transaction that will be aborted; a broker tells one more than once."""
        while self._undecided and self._undecided[0][0] <= offset:
            first, producer = heappop(self._undecided)
            self._aborting[producer] = first
            self._touched.add(Aborted(producer, first))

    def _add(self, first: int, end: int, reason: Reason, offsets: int | None = None) -> None:
        count = end - first if offsets is None else offsets
        last = self.found[-1] if self.found else None
        whole = last is not None and last.offsets == last.end - last.first and count == end - first
        if last is not None and whole and (last.end, last.reason) == (first, reason):
            self.found[-1] = last._replace(end=end, offsets=last.offsets + count)
        else:
            self.found.append(Gap(first, end, reason, count))


def totals(gaps: Iterable[Gap]) -> Mapping[Reason, int]:
    """Offsets by reason."""
    counted: Counter[Reason] = Counter()
    for gap in gaps:
        counted[gap.reason] += gap.offsets
    return dict(counted)
