"""Decide from the repository alone what a recovery will do and where it will end."""

import os
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from pipeline.config import PipelineConfig
from pipeline.errors import (
    BackupError,
    ConfigError,
    LossNotAccepted,
    ObjectMissing,
    StoreError,
    TargetUnreachable,
)
from pipeline.postgres.base import chain
from pipeline.postgres.base.base_backup import KIND
from pipeline.postgres.history.irrevocable import FOLDERS, Removals, seen_whole
from pipeline.postgres.history.waldump import Ending, ReadableEnd, Reading, Record
from pipeline.postgres.replay.targets import Target, TargetKind
from pipeline.postgres.server.tools import Tools
from pipeline.postgres.wal.lsn import Lsn, as_record_end, is_segment
from pipeline.postgres.wal.receiver import ExpectedEnd
from pipeline.postgres.wal.segments import reading_view, segment_header
from pipeline.repository import marker
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks import expected_end

_NEEDED = {"system_identifier", "timeline", "start_lsn", "end_lsn", "end_time"}
_NO_BACKUP = "  there is no base backup"
_PASSED_OVER = "is passed over: damaged, as was found out, or named by --without"


@dataclass(frozen=True)
class Plan:
    """What will be restored, and where replay will stand; plain values, kept in the journal.

    `replay` is the target that PostgreSQL gets. `stop` is the LSN at which replay must stand, by
    the archived WAL of `timeline`, and `branch` the timeline of its lineage that leads there: an
    older one where the target lies before an earlier recovery. `shortfall` says in words how far
    the readable WAL stays behind the expected end; empty when it does not.
    """

    target: str
    replay: str
    backup: str
    system_identifier: str
    timeline: int
    stop: str
    readable_end: str
    readable_reason: str
    expected_end: str
    shortfall: str
    builds_on: tuple[str, ...] = ()
    branch: int = 0
    passed_over: dict[str, str] = field(default_factory=dict)
    """Newer sets from which nothing is to be restored, and why: no target makes them fit."""

    def lines(self) -> Iterator[str]:
        """Yield the plan for people."""
        yield f"target            {self.target}"
        yield f"base backup       {self.backup} (timeline {self.timeline})"
        if self.builds_on:
            yield f"  builds on       {', '.join(self.builds_on)}"
        for label, why in self.passed_over.items():
            yield f"  PASSED OVER     {label}: {why}"
        left = f" on timeline {self.ends_on}" if self.ends_on != self.timeline else ""
        yield f"replay stands at  {self.stop}{left}"
        yield f"readable WAL      to {self.readable_end}: {self.readable_reason}"
        yield f"expected end      {self.expected_end}"
        if self.shortfall:
            yield f"LOSS              {self.shortfall}"
        yield f"of the server     with system identifier {self.system_identifier}"

    @property
    def ends_on(self) -> int:
        """The timeline that replay ends on; plans of earlier versions do not say another one."""
        return self.branch or self.timeline

    def as_facts(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_facts(cls, facts: dict[str, Any]) -> Self:
        known = {name: facts[name] for name in cls.__dataclass_fields__ if name in facts}
        return cls(**known | {"builds_on": tuple(facts.get("builds_on", ()))})


def make(
    config: PipelineConfig,
    target: Target,
    *,
    accept_end: Lsn | None = None,
    without: Collection[str] = (),
) -> Plan:
    """Choose the newest backup set from which the target can be reached, and say where it ends.

    `without` names sets to pass over: damaged ones, as was found out, or the operator's word. Their
    manifests are not read, and what builds on them is passed over with them.

    `accept_end` is the operator's word that ending at this LSN or later is accepted, as a refusal
    named it.

    Raises TargetUnreachable when no set leads there, LossNotAccepted when the WAL at hand ends
    before the expected end and that was not accepted.
    """
    repository = Repository(FolderStore(config.repository.path))
    try:
        expected = ExpectedEnd.read(config.repository.path)
    except ObjectMissing:
        expected = None
    refusals, useless = dict[str, str](), dict[str, str]()
    for label in reversed(repository.labels(KIND)):
        if problem := unusable(repository, label, without):
            useless[label] = refusals[label] = problem
            continue
        found = _Way(config, repository.get(label), target, expected).plan()
        if isinstance(found, Plan):
            _refuse_loss(found, accept_end)
            return replace(found, passed_over=useless)
        refusals[label] = found
    raise TargetUnreachable(
        f"{target} cannot be reached from {config.repository.path}:\n"
        + ("\n".join(f"  {each}: {why}" for each, why in refusals.items()) or _NO_BACKUP)
    )


def passed_over(
    config: PipelineConfig, labels: Collection[str] | None, others: Collection[str] = ()
) -> tuple[str, ...]:
    """Read --without; a label that no base backup has would pass over nothing, and is refused.

    Sets of the kinds `others` may be named too.
    """
    asked, repository = tuple(labels or ()), Repository(FolderStore(config.repository.path))
    known = {label for kind in (KIND, *others) for label in repository.labels(kind)}
    if unknown := sorted(set(asked) - known):
        kinds = " or ".join([f"{KIND} backup", *(f"backup of {kind}" for kind in others)])
        raise ConfigError(f"--without: there is no {kinds} {', '.join(unknown)}")
    return asked


def unusable(repository: Repository, label: str, without: Collection[str]) -> str | None:
    """Tell why nothing can be restored from the set, whatever the target, or None."""
    if label in without:
        return _PASSED_OVER
    try:
        backup = repository.get(label)
    except (BackupError, StoreError) as error:
        return f"it cannot be read: {error}"
    if untold := sorted(_NEEDED - backup.manifest.facts.keys()):
        return f"its manifest does not tell {', '.join(untold)}"
    if broken := chain.broken(backup):
        return broken
    below = (link.label for link in chain.links(backup) if link.label in without)
    return next((f"builds on {label}, which {_PASSED_OVER}" for label in below), None)


class _Way:
    """From one backup set to the target."""

    def __init__(
        self,
        config: PipelineConfig,
        backup: BackupSet,
        target: Target,
        expected: ExpectedEnd | None,
    ) -> None:
        facts = backup.manifest.facts
        self.backup, self.target, self.expected = backup, target, expected
        self.system_identifier = str(facts["system_identifier"])
        self.consistent = Lsn.parse(facts["end_lsn"])
        self.consistent_at = datetime.fromisoformat(facts["end_time"])
        self.timeline = max(facts["timeline"], expected.timeline if expected else 0)
        self._start = Lsn.parse(facts["start_lsn"])
        self._repository, self._tools = config.repository.path, Tools.of(config.postgres)
        self._data = config.postgres.data
        wanted = config.postgres.dbname == facts.get("database")
        self._database = facts.get("database_oid") if wanted else None

    def plan(self) -> Plan | str:
        """Return the plan, or why this set does not lead to the target."""
        noted = marker.noted(str(self._repository))
        ours = self.expected.system_identifier if self.expected else noted
        if ours is not None and ours != self.system_identifier:
            return f"is of another server, with system identifier {self.system_identifier}"
        live = _still_held(self._data, self.system_identifier)
        with reading_view(self._repository, self.timeline, self._tools, live=live) as wal:
            points = ("XLOG",) if self.target.kind is TargetKind.NAME else ()
            rmgrs = ("Transaction", *FOLDERS, *points)
            reading = Reading(wal, self._tools, start=self._start, rmgrs=rmgrs)
            removals = Removals()
            stop = _stop(self.target, reading, self.consistent, removals)
            readable, spans = reading.end, wal.spans
            to_end = stop is None and self.target.kind in {TargetKind.LATEST, TargetKind.TIME}
            if (stands := readable.lsn if to_end else stop) is not None and [*removals]:
                whole = seen_whole(removals, wal, self._tools, self._start)
                if told := whole.refusal(stands, self._database, replays_next=self._replays_next):
                    raise TargetUnreachable(f"{self.target}: {told}")
        # nothing was committed after the moment that was asked for: its state is the end itself
        at_end = self.target.kind is TargetKind.LSN and stop == readable.lsn
        if refusal := self._refusal(stands, readable, to_end=to_end):
            return refusal
        stands = readable.lsn if stands is None else stands
        return Plan(
            target=str(self.target),
            # no record starts where the WAL ends: PostgreSQL would look for one in vain
            replay=str(Target(TargetKind.LATEST) if to_end or at_end else self.target),
            backup=self.backup.label,
            builds_on=tuple(link.label for link in chain.links(self.backup)[:-1]),
            system_identifier=self.system_identifier,
            timeline=self.timeline,
            branch=next(span.timeline for span in reversed(spans) if span.start <= stands),
            stop=str(stands),
            readable_end=str(readable.lsn),
            readable_reason=readable.reason,
            expected_end=expected_end.told(self.expected),
            shortfall=expected_end.shortfall(readable, self.expected, self.timeline)
            if to_end
            else "",
        )

    @property
    def _replays_next(self) -> bool:
        """Whether PostgreSQL replays the record that starts where the target stands."""
        return self.target.kind is TargetKind.LSN and self.target.inclusive

    def _refusal(self, stop: Lsn | None, readable: ReadableEnd, *, to_end: bool) -> str | None:
        if stop is None:
            return f"nothing in the WAL to {readable.lsn} is {self.target}: {readable.reason}"
        if early := self._too_early(stop):
            return early
        if self.target.kind is TargetKind.IMMEDIATE:
            return None  # the set holds the WAL that this needs
        if stop > readable.lsn:
            return f"the WAL ends at {readable.lsn}, before {stop}: {readable.reason}"
        if to_end and self.target.kind is TargetKind.TIME:
            return expected_end.beyond(self.target, self.expected, self.timeline)
        return None

    def _too_early(self, stop: Lsn) -> str | None:
        if self.target.kind is TargetKind.TIME and self.target.time < self.consistent_at:
            # what was committed after that moment, and before the backup began, is in its files
            return f"is consistent only from {self.consistent_at} on"
        if stop < self.consistent:
            return f"is consistent only from {self.consistent} on, the target lies at {stop}"
        return None


def _still_held(data: Path | None, system_identifier: str) -> Path | None:
    """Find the WAL of the server that will be replaced: a recovery saves it before it restores.

    Without it a plan would tell of a loss that is none.
    """
    if data is None or not os.access(folder := data / "pg_wal", os.R_OK | os.X_OK):
        return None
    segments = (path for path in folder.glob("?" * 24) if is_segment(path.name))
    headers = (segment_header(path) for path in segments)
    known = {header.system_identifier for header in headers if header is not None}
    return folder if system_identifier in known else None


def _stop(target: Target, reading: Reading, consistent: Lsn, removals: Removals) -> Lsn | None:
    """Find where replay will stand. Reads to the end: only then it is known where that lies."""
    stop = None
    if target.kind is TargetKind.IMMEDIATE:
        stop = consistent
    size = reading.wal.segment_size
    if target.kind is TargetKind.LSN:
        # stopped before a record, replay stands where the one before it ends
        stop = Lsn.parse(target.value)
        stop = stop if target.inclusive else as_record_end(stop, size)
    for record in reading:
        removals.take(record, size)
        if stop is None:
            stop = _stop_at(record, target, size)
    return stop


def _stop_at(record: Record, target: Target, size: int) -> Lsn | None:
    """Tell where replay stands if this record stops it, as recoveryStopsBefore and …After do."""
    if target.kind is TargetKind.NAME:
        found = (record.op, record.rest) == (b"RESTORE_POINT", target.value.encode())
        return record.end(size) if found else None
    if (end := Ending.of(record, size)) is None:
        return None
    before = as_record_end(end.lsn, size)
    if target.kind is TargetKind.XID and end.xid == int(target.value):
        return end.end_lsn if target.inclusive else before
    if target.kind is TargetKind.TIME and (
        end.time > target.time or (end.time == target.time and not target.inclusive)
    ):
        return before
    return None


def _refuse_loss(plan: Plan, accept_end: Lsn | None) -> None:
    ends = Lsn.parse(plan.readable_end)
    # or later: what the server wrote when it was stopped is only seen when it was saved
    if not plan.shortfall or (accept_end is not None and accept_end <= ends):
        return
    said = f"; {accept_end} was accepted, which lies behind it" if accept_end else ""
    told = f"{plan.target}: {plan.shortfall}{said}"
    raise LossNotAccepted(told, f"--accept-end {plan.readable_end}")
