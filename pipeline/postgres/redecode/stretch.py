"""What the archived WAL says of a stretch, before any server is started for it.

Where a slot can begin so that it knows all that was open, at which positions it must be confirmed,
and why it cannot be decoded at all: a hole, WAL that was not written for logical decoding.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipeline.errors import RestoreError, TargetUnreachable
from pipeline.postgres.base import decodable
from pipeline.postgres.history.waldump import Reading, Record
from pipeline.postgres.server.tools import Tools
from pipeline.postgres.wal.lsn import Lsn, as_record_end
from pipeline.postgres.wal.segments import MergedWal
from pipeline.postgres.wal.timelines import timeline_at

_RUNNING = re.compile(rb"nextXid (\d+) latestCompletedXid \d+ oldestRunningXid (\d+)")
_SETTING = re.compile(rb"(\w+)=(\w+)")
_SPELLED = {
    "max_prepared_xacts": "max_prepared_transactions",
    "max_locks_per_xact": "max_locks_per_transaction",
}
COUNTED = {"max_connections", "max_worker_processes", "max_wal_senders", *_SPELLED.values()}
"""Settings of which a standby needs as much as its primary had at any moment of the WAL."""
_RMGRS = ("Standby", "Transaction", "XLOG", "LogicalMessage")
# a slot begins at the third record at which all that ran at the one before has ended; see
# SnapBuildFindSnapshot in snapbuild.c
_STAGES = 3
_LOGICAL = "logical"


class TooYoung(TargetUnreachable):
    """No slot on this base backup begins before the stretch; on an older one it may."""


class Running(NamedTuple):
    """A running-xacts record: which transactions were open, by the oldest and the next one."""

    lsn: Lsn
    end: Lsn
    oldest: int
    next: int

    @property
    def idle(self) -> bool:
        return self.oldest == self.next


@dataclass(frozen=True)
class Stretch:
    """All commits whose record starts at or behind `start` and before `end`, and how to get them.

    A side server replays from `base` to `before`; a slot that is made there has begun by
    `consistent`. At
    each of `steps` replay is halted until the slot was read and confirmed, because only these
    records let it give up the catalogue rows that replay removes next. `settings` are the least
    that replay needs.
    """

    start: Lsn
    end: Lsn
    base: Lsn
    before: Lsn
    consistent: Lsn
    steps: tuple[Lsn, ...]
    settings: Mapping[str, int]

    def holds(self, lsn: Lsn) -> bool:
        """Whether a commit record, or a message, that starts there is of the stretch."""
        return self.start <= lsn < self.end


def survey(wal: MergedWal, tools: Tools, base: Mapping[str, Any], start: Lsn, end: Lsn) -> Stretch:
    """Read the WAL from the start of a base backup to the end of a stretch.

    Raises TooYoung when a slot would begin behind `start`, TargetUnreachable when the WAL does not
    lead to `end` or was not written for logical decoding.
    """
    if start > end:
        raise TargetUnreachable(f"the stretch ends at {end}, before it begins at {start}")
    size, consistent_at = wal.segment_size, Lsn.parse(base["end_lsn"])
    replayed_from, timeline = Lsn.parse(base["start_lsn"]), base["timeline"]
    if timeline_at(wal.spans, Lsn(consistent_at - 1)) != timeline:
        newest = wal.spans[-1].timeline
        raise TooYoung(f"it is of timeline {timeline}, which does not lead to timeline {newest}")
    reading = Reading(wal, tools, start=replayed_from, end=end, rmgrs=_RMGRS)
    seen, last = _Seen(start, consistent_at, level=_level(base)), consistent_at
    for record in reading:
        last = record.end(size)
        seen.take(record, size)
    if not reading.end.complete:
        raise TargetUnreachable(
            f"the stretch from {start} to {end} cannot be decoded: {reading.end.reason}; the WAL "
            f"can be read up to {reading.end.lsn} on timeline {reading.end.timeline}"
        )
    if reading.end.lsn < as_record_end(end, size):
        raise TargetUnreachable(
            f"{end}, the end of the stretch, lies within a record, which would be left out: say "
            f"{reading.end.lsn}, where it begins, or a position behind it"
        )
    before, first = _beginning(seen.records, start, consistent_at)
    steps = [one.end for one in seen.records if first < one.end < last]
    steps.append(max(first, last))
    return Stretch(start, end, replayed_from, before, first, tuple(steps), seen.settings)


def _level(base: Mapping[str, Any]) -> str:
    """Of the WAL at the base backup; older ones do not tell, and CDC needs no other."""
    return str((base.get(decodable.FACT) or {}).get("wal_level", _LOGICAL))


@dataclass
class _Seen:
    """Records of the WAL at which a slot may begin, and what its servers were started with."""

    start: Lsn
    consistent_at: Lsn
    level: str
    records: list[Running] = field(default_factory=list)
    settings: dict[str, int] = field(default_factory=dict)

    def take(self, record: Record, size: int) -> None:
        """Take in a record; TargetUnreachable where the stretch is not of logical WAL."""
        if record.op == b"PARAMETER_CHANGE":
            self._restarted(record)
        elif record.op == b"RUNNING_XACTS" and self._fit(record):
            self.records.append(_running(record, size))

    def _fit(self, record: Record) -> bool:
        return self.level == _LOGICAL and record.lsn >= self.consistent_at

    def _restarted(self, record: Record) -> None:
        given = {name.decode(): value.decode() for name, value in _SETTING.findall(record.rest)}
        self.level = given.get("wal_level", "unknown")
        if self.level != _LOGICAL:
            self.records.clear()  # nobody decodes from before it
            if record.lsn >= self.start:
                raise TargetUnreachable(
                    f"at {record.lsn} the server was restarted with wal_level {self.level}: what "
                    "was written under it holds no changes that could be decoded"
                )
        for name, value in given.items():
            if (spelled := _SPELLED.get(name, name)) in COUNTED:
                self.settings[spelled] = max(int(value), self.settings.get(spelled, 0))


def _running(record: Record, size: int) -> Running:
    if (found := _RUNNING.match(record.rest)) is None:
        raise RestoreError(f"pg_waldump tells of {record.lsn} in unknown words: {record.rest!r}")
    return Running(record.lsn, record.end(size), int(found[2]), int(found[1]))


def _beginning(records: Sequence[Running], start: Lsn, consistent_at: Lsn) -> tuple[Lsn, Lsn]:
    """Where to make a slot that begins before `start`, but not long before, and where it has."""
    usable = [one for one in records if one.end <= start]
    for number in reversed(range(len(usable))):
        if (found := _known_from(usable[number:])) is not None:
            return usable[number].lsn, found
    told = f"{len(usable)} records of running transactions lie between its end at {consistent_at}"
    raise TooYoung(
        f"{told} and {start}, where the stretch begins, and a slot that begins at one of them "
        "would not know all that was open"
    )


def _known_from(records: Sequence[Running]) -> Lsn | None:
    """Where a slot that is made right before the first record begins; None where it does not."""
    awaited, stages = records[0].next, _STAGES
    for record in records:
        if record.idle:
            return record.end
        if not _precedes(record.oldest, awaited):
            awaited, stages = record.next, stages - 1
            if not stages:
                return record.end
    return None


def _precedes(xid: int, other: int) -> bool:
    """Whether a transaction id is older: they are numbers on a circle (transam.c)."""
    return (xid - other) & 0xFFFFFFFF >= 1 << 31
