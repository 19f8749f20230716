"""What a replay will do and what it costs, from the archive's indexes alone.

Offsets without a record are filled with transaction markers, which no consumer sees. Filler
records would be faster in gaps of tens of millions (about 80 times, as before a log start), but
whoever reads uncommitted would see them, and a compacted topic would need keys for them that nobody
uses: so there are none, and `auto` renumbers what markers would take too long for.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple

from pipeline.errors import ConfigError
from pipeline.kafka.archive.reading import Archived
from pipeline.kafka.log.gaps import Gap, Reason

PARALLEL = 4
"""Partitions that are written at a time, each over its own connection."""
TOGETHER = 2
"""How much faster that is than one by one; 8 partitions were 1.4 times as fast on two cores."""

# Measured on two cores that the broker and others shared (load 9), one partition; a plan says
# "about". In batches of 1 MB 32 to 40 MB a second uncompressed, 13 to 39 in lz4; of 16 KB 525 to
# 683 batches a second, 1,500 on a quieter machine; 1.5 million offsets before the start.
BYTES, BATCHES, HEAD = 40e6, 800, 1.2e6
"""A second: bytes and batches appended and read back, offsets filled before the start."""
_HISTOGRAM = (1, 10, 100, 10_000)
_SIZES = (*(f"up to {size:,}" for size in _HISTOGRAM), "more")


class Mode(StrEnum):
    """Whether records come back to their offsets."""

    EXACT = "exact"
    DENSE = "dense"
    AUTO = "auto"


class By(StrEnum):
    """What fills an offset without a record, so that no consumer sees it."""

    MARKERS = "markers"
    TRANSACTIONS = "empty transactions"


class Range(NamedTuple):
    """Offsets [first, end) of a partition; None is where the archived log begins or ends."""

    first: int | None = None
    end: int | None = None


_FILLED = {
    By.MARKERS: (15_000, timedelta(milliseconds=4)),
    By.TRANSACTIONS: (400, timedelta(milliseconds=10)),
}
"""Offsets of one partition filled in a second, and what each gap takes besides: all before it must
be acknowledged, and what fills it before what follows.

Measured: 15,700 and 23,500 markers a second, 391 and 763 empty transactions, 16 at a time; one
alone took 1.2 to 2.9 ms as a marker, 4.2 to 7.9 ms as a transaction.
"""


@dataclass(frozen=True)
class PartitionPlan:
    """One partition: archived offsets [first, end) go to `start` and what follows it.

    `head` offsets are filled and deleted so that the log starts at `start`; `markers` in `gaps`
    places stand for offsets without a record.
    """

    partition: int
    mode: Mode
    first: int
    end: int
    start: int
    head: int
    records: int
    bytes: int
    batches: int
    largest: int
    gaps: int
    markers: int
    histogram: tuple[int, ...]
    by: By = By.MARKERS

    @property
    def dense(self) -> bool:
        return self.mode is Mode.DENSE

    @property
    def moving(self) -> timedelta:
        """What the records take, wherever they go."""
        return timedelta(seconds=self.bytes / BYTES + self.batches / BATCHES)

    @property
    def filling(self) -> timedelta:
        """What exact mode takes besides."""
        if self.dense:
            return timedelta(0)
        rate, each = _FILLED[self.by]
        return timedelta(seconds=self.markers / rate + self.head / HEAD) + self.gaps * each

    @property
    def seconds(self) -> float:
        return (self.moving + self.filling).total_seconds()

    def __str__(self) -> str:
        line = (
            f"[{self.partition}] {self.mode}: offsets {self.first:,} to {self.end:,}, "
            f"about {self.records:,} records in {self.bytes:,} bytes"
        )
        if self.gaps and not self.dense:
            sizes = zip(_SIZES, self.histogram, strict=True)
            spread = ", ".join(f"{count:,} of {size}" for size, count in sizes if count)
            line += f"; {self.markers:,} {self.by} in {self.gaps:,} gaps ({spread})"
        if self.head:
            line += f"; log start {self.start:,} by filler that is deleted again"
        if self.dense:
            line += f"; renumbered from {self.start:,} on, with a map"
        return f"{line}; about {self.seconds:,.0f} s, {self.filling.total_seconds():,.0f} of gaps"


def plan_partition(archived: Archived, wanted: Range, by: By = By.MARKERS) -> PartitionPlan:
    """Plan one partition in exact mode; the log begins where the archived one did."""
    index = archived.index
    first = index.log_start if wanted.first is None else max(wanted.first, index.start)
    end = index.end if wanted.end is None else min(wanted.end, index.end)
    end = max(first, end)
    holes = list(_holes(archived.gaps(), first, end))
    parts = [part for part in index.segments if part.end > first and part.first < end]
    aborted = sum(hole.offsets for hole in holes if hole.reason is Reason.ABORTED)
    sizes = _spread(holes)
    return PartitionPlan(
        partition=index.partition,
        mode=Mode.EXACT,
        first=first,
        end=end,
        start=first,
        head=first,
        records=min(sum(part.records for part in parts) - aborted, end - first),
        bytes=sum(part.bytes for part in parts),
        batches=sum(part.batches for part in parts),
        largest=max((part.largest for part in parts), default=0),
        gaps=sum(sizes),
        markers=sum(hole.offsets for hole in holes),
        histogram=sizes,
        by=by,
    )


def choose(plans: Sequence[PartitionPlan], mode: Mode, within: timedelta) -> list[PartitionPlan]:
    """Give each partition its mode; `auto` gives up exact ones, dearest first, to hold the RTO."""
    if mode is Mode.DENSE:
        return [dense(plan) for plan in plans]
    if mode is Mode.EXACT:
        return list(plans)
    chosen = {plan.partition: plan for plan in plans}
    for plan in sorted(plans, key=lambda plan: plan.filling, reverse=True):
        if duration(chosen.values()) <= within or not plan.filling:
            break
        chosen[plan.partition] = dense(plan)
    return [chosen[plan.partition] for plan in plans]


def dense(plan: PartitionPlan) -> PartitionPlan:
    """Renumber from 0 on, without a gap."""
    return replace(plan, mode=Mode.DENSE, start=0, head=0)


def appended(plan: PartitionPlan, end: int) -> PartitionPlan:
    """Put it behind what a partition that ends at `end` holds already.

    Raises ConfigError where exact mode would need an offset that is taken.
    """
    if plan.dense:
        return replace(plan, start=end)
    if plan.first < end:
        raise ConfigError(
            f"partition {plan.partition} ends at {end}, the first offset to bring back is "
            f"{plan.first}: use --from-offset {end}, or --mode dense"
        )
    return replace(plan, start=end, head=0)


def duration(plans: Iterable[PartitionPlan]) -> timedelta:
    """What they take together, PARALLEL at a time."""
    times = [plan.moving + plan.filling for plan in plans]
    return max([sum(times, timedelta(0)) / TOGETHER, *times], default=timedelta(0))


def _holes(gaps: Iterable[Gap], first: int, end: int) -> Iterator[Gap]:
    """What of these gaps lies in [first, end)."""
    for gap in gaps:
        low, high = max(gap.first, first), min(gap.end, end)
        if low < high:
            yield Gap(low, high, gap.reason, min(gap.offsets, high - low))


def _spread(holes: Iterable[Gap]) -> tuple[int, ...]:
    """Count gaps by size; neighbours are one, and a compacted batch has as many as may be."""
    counts = [0] * (len(_HISTOGRAM) + 1)
    behind, size = -1, 0

    def close() -> None:
        if size:
            counts[next((i for i, most in enumerate(_HISTOGRAM) if size <= most), -1)] += 1

    for hole in holes:
        whole = hole.offsets == hole.end - hole.first
        if hole.first != behind or not whole:
            close()
            size = 0
        if whole:
            size += hole.offsets
        else:
            counts[0] += min(hole.offsets, hole.end - hole.first - hole.offsets + 1)
        behind = hole.end
    close()
    return tuple(counts)
