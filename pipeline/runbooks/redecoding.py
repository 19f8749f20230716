"""A stretch of the archive decoded again: the changes that a slot would have sent, had it lived."""

from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

from pipeline.config import PipelineConfig
from pipeline.errors import ObjectMissing, PipelineError, TargetUnreachable
from pipeline.postgres.base.base_backup import KIND
from pipeline.postgres.history.waldump import Ending, Reading, commit_order
from pipeline.postgres.redecode.decoding import Decoding, Door
from pipeline.postgres.redecode.pgoutput import Event
from pipeline.postgres.redecode.stretch import Stretch, TooYoung, survey
from pipeline.postgres.server.tools import Tools
from pipeline.postgres.wal.lsn import Lsn, parse_segment, segment_name, segment_start
from pipeline.postgres.wal.receiver import ExpectedEnd
from pipeline.postgres.wal.segments import MergedWal, reading_view
from pipeline.postgres.wal.timelines import timeline_at
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks.plan import unusable
from pipeline.runbooks.side import SideServer, alone, scratch

_SINCE = 160000  # server_version_num: logical decoding on a standby


@dataclass(frozen=True)
class Redecode:
    """From which base backup a stretch is decoded, and how."""

    backup: BackupSet
    stretch: Stretch

    def lines(self) -> Iterator[str]:
        """Yield the plan for people."""
        stretch = self.stretch
        yield f"stretch      commits from {stretch.start} to before {stretch.end}"
        yield f"base backup  {self.backup.label}"
        yield f"slot         made at {stretch.before}, has begun by {stretch.consistent}"
        yield f"steps        {len(stretch.steps)}"


@contextmanager
def redecoded(
    config: PipelineConfig,
    start: Lsn,
    end: Lsn,
    progress: Callable[[str], None],
    *,
    without: Collection[str] = (),
) -> Iterator[Iterator[Event]]:
    """Decode all commits whose record starts at or behind `start` and before `end`.

    These are what a slot sends that had confirmed `start`, up to where one begins whose creation
    answered `end`. The changes come while they are decoded; the side server that decodes them is
    swept at the end of the block. A whole answer ends by itself, every other one by an error.

    Raises TargetUnreachable where no base backup and no WAL lead there, CataloguesPruned where the
    primary removed what decoding needs.
    """
    with _prepared(config, start, end, progress, without) as decoding:
        yield decoding.events()


@contextmanager
def opened(
    config: PipelineConfig, start: Lsn, end: Lsn, progress: Callable[[str], None], door: Door
) -> Iterator[Iterator[Lsn]]:
    """Have somebody else read the same stretch through a door, from one position to the next."""
    with _prepared(config, start, end, progress) as decoding:
        decoding.door = door
        with closing(decoding.steps()) as steps:
            yield steps


def obstacles(config: PipelineConfig, start: Lsn) -> Iterator[str]:
    """Say, by manifests and names of files alone, why commits from `start` on cannot be decoded.

    What was written last need not be archived yet. Where none is named a survey may still find one.
    """
    repository, refusals = Repository(FolderStore(config.repository.path)), list[str]()
    try:
        scratch(config)
        for label in reversed(repository.labels(KIND)):
            if told := unusable(repository, label, ()) or _unfit(repository.get(label), start):
                refusals.append(f"{label}: {told}")
                continue
            backup = repository.get(label)
            with _wal_of(config, backup) as wal:
                yield from _holes(wal, Lsn.parse(backup.manifest.facts["start_lsn"]))
            return
    except (PipelineError, OSError) as error:
        refusals.append(str(error))
    yield "; ".join(refusals) or f"{config.repository.path} holds no base backup"


def _holes(wal: MergedWal, start: Lsn) -> Iterator[str]:
    size = wal.segment_size
    held = {parse_segment(name, size).start for name in wal.segments}
    for at in range(segment_start(start, size), max(held, default=Lsn(0)), size):
        if at not in held:
            timeline = timeline_at(wal.spans, Lsn(at))
            yield f"segment {segment_name(timeline, Lsn(at), size)} is missing"


@contextmanager
def _prepared(
    config: PipelineConfig,
    start: Lsn,
    end: Lsn,
    progress: Callable[[str], None],
    without: Collection[str] = (),
) -> Iterator[Decoding]:
    with alone(config), _surveyed(config, start, end, without) as (plan, wal):
        for line in plan.lines():
            progress(line)
        side = SideServer.named(config, "redecode")
        try:
            side.unpack(plan.backup.label)
            yield Decoding(
                server=side.server,
                postgres=config.postgres,
                publication=config.cdc.publication,
                wal=wal,
                stretch=plan.stretch,
                work=side.folder / "feed",
                progress=progress,
            )
        finally:
            side.forget()


def commit_of(config: PipelineConfig, xid: int) -> Ending:
    """Find the newest transaction of this id, or of which this is a part, in the archived WAL.

    Raises TargetUnreachable where none was committed in what can be read.
    """
    repository, tools = Repository(FolderStore(config.repository.path)), Tools.of(config.postgres)
    until, searched = None, list[str]()
    for label in reversed(repository.labels(KIND)):
        if unusable(repository, label, ()):
            continue
        backup = repository.get(label)
        start = Lsn.parse(backup.manifest.facts["start_lsn"])
        with _wal_of(config, backup) as wal:
            reading = Reading(wal, tools, start=start, end=until, rmgrs=("Transaction",))
            for ending in commit_order(reading):
                if xid in {ending.xid, *ending.subxacts}:
                    return ending
        until = start
        searched.append(f"  from {label}, at {start}, to {reading.end.lsn}: {reading.end.reason}")
    raise TargetUnreachable(
        f"no commit of transaction {xid} is in {config.repository.path}:\n"
        + ("\n".join(searched) or "  no base backup")
    )


@contextmanager
def _wal_of(config: PipelineConfig, backup: BackupSet) -> Iterator[MergedWal]:
    """Show the WAL of a backup's server, along the newest timeline that it is known to be on."""
    root, server = config.repository.path, backup.manifest.facts["system_identifier"]
    repository, timelines = Repository(FolderStore(root)), set[int]()
    for label in repository.labels(KIND):
        if not unusable(repository, label, ()):
            facts = repository.get(label).manifest.facts
            timelines.update([facts["timeline"]] * (facts["system_identifier"] == server))
    with suppress(ObjectMissing):
        expected = ExpectedEnd.read(root)
        timelines.update([expected.timeline] * (expected.system_identifier == server))
    tools = Tools.of(config.postgres)
    with reading_view(root, max(timelines), tools, system_identifier=server) as wal:
        yield wal


@contextmanager
def _surveyed(
    config: PipelineConfig, start: Lsn, end: Lsn, without: Collection[str]
) -> Iterator[tuple[Redecode, MergedWal]]:
    """Choose the newest base backup on which a slot begins early enough, and show its WAL."""
    repository, tools = Repository(FolderStore(config.repository.path)), Tools.of(config.postgres)
    refusals = dict[str, str]()
    for label in reversed(repository.labels(KIND)):
        if problem := unusable(repository, label, without) or _unfit(repository.get(label), start):
            refusals[label] = problem
            continue
        backup = repository.get(label)
        with _wal_of(config, backup) as wal:
            try:
                stretch = survey(wal, tools, backup.manifest.facts, start, end)
            except TooYoung as error:
                refusals[label] = str(error)
                continue
            yield Redecode(backup, stretch), wal
            return
    raise TargetUnreachable(
        f"commits from {start} on cannot be decoded from {config.repository.path}:\n"
        + ("\n".join(f"  {each}: {why}" for each, why in refusals.items()) or "  no base backup")
    )


def _unfit(backup: BackupSet, start: Lsn) -> str | None:
    """Tell what the manifest alone shows: it is too young, or of an older server."""
    facts = backup.manifest.facts
    if (version := int(facts["server_version_num"])) < _SINCE:
        return f"is of PostgreSQL {version // 10000}: a standby can decode since PostgreSQL 16"
    if Lsn.parse(facts["end_lsn"]) > start:
        return f"is consistent only from {facts['end_lsn']} on, the stretch begins at {start}"
    return None
