"""Where the archived WAL leads: timelines, and the expected end that a receiver wrote down."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

from checks.check import Observation, check
from checks.subjects import WalArchive
from fixtures.faults import files
from fixtures.scratch import Damage, Scratch
from pipeline.errors import ObjectMissing, RestoreError
from pipeline.postgres.wal.receiver import EXPECTED_END, ExpectedEnd
from pipeline.postgres.wal.timelines import history_name, lineage, parse_history

FRESH = timedelta(minutes=5)
"""The objective: an older expected end could hide more loss than that."""


@check(
    "wal.timeline-histories",
    on=WalArchive,
    advice="Recovery cannot follow this timeline, or would follow one that nobody wants. Copy the "
    "history file from the server's pg_wal; remove one that a test restore left behind.",
)
def timeline_histories(archive: WalArchive) -> Iterator[Observation]:
    """Every timeline in the archive has its history file, and every history file its timeline."""
    timelines = {int(path.name[:8], 16) for path in archive.segments()}
    for timeline in sorted(timelines - {1}):
        yield Observation(history_name(timeline), _history_problem(timeline, archive))
    for path in (path for folder in archive.folders for path in folder.glob("????????.history")):
        # a server that was promoted just now has archived the history, and no segment yet
        stray = int(path.name[:8], 16) not in timelines | {archive.end.timeline}
        yield Observation(path.name, "no WAL of that timeline is archived" if stray else None)
    last = max(timelines, default=0)
    newer = f"the archive goes on to timeline {last}, the server to {archive.end.timeline}"
    yield Observation(EXPECTED_END, None if last <= archive.end.timeline else newer)


def _history_problem(timeline: int, archive: WalArchive) -> str | None:
    try:
        spans = lineage(timeline, archive.folders)
    except RestoreError as error:
        return str(error)
    return None if len(spans) > 1 else "it does not say where the timeline began"


@timeline_histories.detects
def history_missing(scratch: Scratch[WalArchive], _rng: Random) -> Damage:
    """A copy of the archive that took only what looks like a segment."""
    name = history_name(scratch.copy.end.timeline)
    return replace(files.drop(scratch, f"wal/{name}"), subject=name).told_as("timeline 2: no ")


@timeline_histories.detects
def history_emptied(scratch: Scratch[WalArchive], _rng: Random) -> Damage:
    """A crash between the creation of the file and its content."""
    name = history_name(scratch.copy.end.timeline)
    scratch.path(f"wal/{name}").write_bytes(b"")
    return Damage(name, "it is empty", says="does not say where the timeline began")


@timeline_histories.detects
def history_of_a_test_restore(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """A restored copy archived into the archive of its source; `latest` would follow it."""
    end = scratch.copy.end
    name = history_name(end.timeline + rng.randrange(1, 9))
    text = scratch.path(f"wal/{history_name(end.timeline)}").read_text()
    branch = f"{text}\n{end.timeline}\t{end.lsn}\tno recovery target specified\n"
    scratch.path(f"wal/{name}").write_text(branch)
    assert parse_history(branch, int(name[:8], 16))
    return Damage(name, "it appeared", says="no WAL of that timeline")


@check(
    "wal.expected-end-known",
    on=WalArchive,
    severity="blocker",
    advice="Start the receiver (`pipeline wal receive`) and keep it running: without its word "
    "nobody can tell a complete recovery from one that ended early.",
)
def expected_end_known(archive: WalArchive) -> Iterator[Observation]:
    """The receiver wrote down, within the objective, how far this server had come."""
    try:
        end = archive.end
    except ObjectMissing as error:
        yield Observation(EXPECTED_END, str(error))
        return
    age = datetime.now(UTC) - end.time
    late = f"it is {age} old, the objective allows {FRESH}"
    yield Observation(EXPECTED_END, late if age > FRESH else None)
    known = {backup.manifest.facts["system_identifier"] for backup in archive.bases()}
    foreign = f"it is of server {end.system_identifier}, the backups are of {sorted(known)}"
    yield Observation("system_identifier", None if known == {end.system_identifier} else foreign)


@expected_end_known.detects
def receiver_never_ran(scratch: Scratch[WalArchive], _rng: Random) -> Damage:
    """Only archive_command was set up."""
    return files.drop(scratch, EXPECTED_END).told_as("no object")


@expected_end_known.detects
def receiver_stopped(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """The receiver died and nobody looked."""
    late = timedelta(minutes=5, seconds=rng.randrange(1, 86_400))
    return _rewrite(scratch, EXPECTED_END, time=datetime.now(UTC) - late).told_as(
        " old, the objective allows"
    )


@expected_end_known.detects
def receiver_of_another_server(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """Two pipelines write into one repository."""
    return _rewrite(
        scratch, "system_identifier", system_identifier=str(rng.randrange(1 << 62))
    ).told_as("it is of server")


def _rewrite(scratch: Scratch[WalArchive], subject: str, **changes: object) -> Damage:
    end: ExpectedEnd = replace(scratch.copy.end, **changes)  # type: ignore[arg-type]  # fields by name
    end.write(scratch.repository)
    return Damage(subject, f"the expected end says {changes}")
