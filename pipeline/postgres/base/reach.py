"""Which moments each base backup leads to, read from the repository alone, without a restore.

As if the server and its disk were gone: what its pg_wal still holds is not counted.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.config import PipelineConfig
from pipeline.errors import ObjectMissing, RestoreError
from pipeline.postgres.base import chain
from pipeline.postgres.base.base_backup import KIND
from pipeline.postgres.history.waldump import Ending, ReadableEnd, Reading
from pipeline.postgres.server.tools import Tools
from pipeline.postgres.wal.lsn import Lsn, parse_segment, segment_start, segments_between
from pipeline.postgres.wal.receiver import NO_WORD, ExpectedEnd
from pipeline.postgres.wal.segments import MergedWal, reading_view
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore


@dataclass(frozen=True)
class Reach:
    """From one base backup: every moment from its consistency to the end of the readable WAL.

    `until` is the last moment whose state is known: that of the expected end where the WAL comes
    so far, else that of the last transaction. `missing` names segments that are not there although
    WAL behind them is, or although the server had come further.
    """

    backup: str
    timeline: int
    first_lsn: Lsn
    first_time: datetime
    last_lsn: Lsn
    until: datetime
    reason: str
    missing: tuple[str, ...] = ()
    complete: bool = True
    restorable: bool = True

    def lines(self) -> Iterator[str]:
        """Yield the answer for people."""
        yield f"{self.backup}  timeline {self.timeline}"
        if not self.restorable:
            yield f"  BROKEN   {self.reason}"
            return
        yield f"  LSN      {self.first_lsn} to {self.last_lsn}"
        yield f"  time     {self.first_time.isoformat()} to {self.until.isoformat()}"
        yield f"  {'ends' if self.complete else 'BROKEN'}     {self.reason}"
        for name in self.missing:
            yield f"  missing  {name}"

    def as_facts(self) -> dict[str, Any]:
        """Plain values, for programs."""
        return {
            "backup": self.backup,
            "timeline": self.timeline,
            "first_lsn": str(self.first_lsn),
            "first_time": self.first_time.isoformat(),
            "last_lsn": str(self.last_lsn),
            "until": self.until.isoformat(),
            "reason": self.reason,
            "missing": list(self.missing),
            "complete": self.complete,
            "restorable": self.restorable,
        }


@dataclass(frozen=True)
class _Read:
    """What a reading of the WAL found: its end, and the moment of its last transaction."""

    end: ReadableEnd
    last: datetime | None


def reach(
    config: PipelineConfig, unreadable: Callable[[str, str], None] | None = None
) -> list[Reach]:
    """Answer for every base backup, oldest first. Every WAL record is read once, CRCs included.

    `unreadable` hears of each whose manifest cannot be read; without it that is an error.
    """
    repository, tools = config.repository.path, Tools.of(config.postgres)
    expected = None
    with suppress(ObjectMissing):
        expected = ExpectedEnd.read(repository)
    groups: dict[tuple[str, int], list[BackupSet]] = defaultdict(list)
    useless = []
    for backup in Repository(FolderStore(repository)).sets(KIND, unreadable):
        if broken := chain.broken(backup):
            useless.append(_nowhere(backup, broken))
            continue
        facts, ours = backup.manifest.facts, _of_same_server(expected, backup)
        timeline = max(facts["timeline"], ours.timeline if ours else 0)
        groups[facts["system_identifier"], timeline].append(backup)
    answers = [
        answer
        for (_, timeline), backups in groups.items()
        for answer in _group(
            repository, tools, timeline, backups, _of_same_server(expected, backups[0])
        )
    ]
    return sorted([*answers, *useless], key=lambda answer: answer.backup)


def _of_same_server(expected: ExpectedEnd | None, backup: BackupSet) -> ExpectedEnd | None:
    system = backup.manifest.facts["system_identifier"]
    return expected if expected and expected.system_identifier == system else None


def _group(
    repository: Path,
    tools: Tools,
    timeline: int,
    backups: list[BackupSet],
    expected: ExpectedEnd | None,
) -> Iterator[Reach]:
    """Newest first: an older backup needs to be read only up to where the newer one starts."""
    left = list(backups)
    server = str(backups[0].manifest.facts["system_identifier"])
    try:
        with reading_view(repository, timeline, tools, system_identifier=server) as wal:
            newer: tuple[Lsn, _Read] | None = None
            while left:
                if branched := _branched_off(left[-1], wal):
                    yield _only_itself(left.pop(), branched)
                    continue
                start = Lsn.parse(left[-1].manifest.facts["start_lsn"])
                read = _read(wal, tools, start, newer)
                newer = start, read
                yield _answer(left.pop(), wal, read, expected)
    except RestoreError as error:  # no history, a segment that cannot be read
        for backup in left:
            yield _only_itself(backup, str(error))


def _read(wal: MergedWal, tools: Tools, start: Lsn, newer: tuple[Lsn, _Read] | None) -> _Read:
    # to the end of its segment: pg_waldump takes a page that it was told to read in part for damage
    until = segment_start(newer[0], wal.segment_size) + wal.segment_size if newer else None
    reading, last = Reading(wal, tools, start=start, end=until, rmgrs=("Transaction",)), None
    for record in reading:
        if (ending := Ending.of(record, wal.segment_size)) is not None:
            last = ending.time
    if newer and (reading.end.complete or reading.end.lsn >= newer[1].end.lsn):
        return _Read(newer[1].end, newer[1].last or last)
    return _Read(reading.end, last)


def _branched_off(backup: BackupSet, wal: MergedWal) -> str:
    """Tell where the branch of a backup was left, when that was before its end."""
    facts = backup.manifest.facts
    for span in wal.spans:
        if span.timeline == facts["timeline"]:
            if span.end is None or Lsn.parse(facts["end_lsn"]) <= span.end:
                return ""
            return f"timeline {span.timeline} was left at {span.end}, before this backup's end"
    return f"timeline {facts['timeline']} does not lead to timeline {wal.spans[-1].timeline}"


def _only_itself(backup: BackupSet, why: str) -> Reach:
    """No WAL is of use: the set brings its own, to the place where it is consistent."""
    facts = backup.manifest.facts
    lsn, time = Lsn.parse(facts["end_lsn"]), datetime.fromisoformat(facts["end_time"])
    told = f"only `immediate`: {why}"
    return Reach(backup.label, facts["timeline"], lsn, time, lsn, time, reason=told, complete=False)


def _nowhere(backup: BackupSet, why: str) -> Reach:
    """A link of its chain is missing or foreign: it leads to no moment at all."""
    alone = _only_itself(backup, why)
    told = f"cannot be restored: {why}"
    return Reach(**{**vars(alone), "reason": told, "restorable": False})


def _answer(backup: BackupSet, wal: MergedWal, read: _Read, expected: ExpectedEnd | None) -> Reach:
    own = _only_itself(backup, read.end.reason)
    unknown = expected.silent_on(wal.spans[-1].timeline) if expected else NO_WORD
    if unknown:
        expected = None
    end, missing = read.end, _missing(wal, read.end, expected)
    if end.lsn < own.first_lsn:
        return Reach(**{**vars(own), "missing": missing})
    short = expected is not None and end.lsn < expected.lsn
    until = max(own.first_time, read.last or own.first_time)
    reason = end.reason
    if expected is None:
        reason += f"; how far {unknown}"
    elif short:
        reason += f"; the server had come to {expected.lsn} at {expected.time.isoformat()}"
    else:
        until = max(until, expected.time)
    return Reach(
        backup.label,
        end.timeline,
        own.first_lsn,
        own.first_time,
        end.lsn,
        until,
        reason,
        missing,
        complete=end.complete and not short,
    )


def _missing(wal: MergedWal, end: ReadableEnd, expected: ExpectedEnd | None) -> tuple[str, ...]:
    """Segments that are not there between the readable end and what is known to lie behind it."""
    size = wal.segment_size
    behind = [parse_segment(name, size).start + size for name in wal.segments]
    far = max([*behind, *([expected.lsn] if expected else [])], default=end.lsn)
    return tuple(
        name
        for span in wal.spans
        if span.end is None or span.end > end.lsn
        for name in segments_between(
            span.timeline,
            max(end.lsn, span.start),
            far if span.end is None else min(far, span.end),
            size,
        )
        if name not in wal.segments
    )
