"""The WAL receiver: the newest seconds are nowhere but with it, and a crash of it is quiet."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

from checks.check import Observation, check
from checks.subjects import WalArchive
from fixtures.faults import files
from fixtures.scratch import Damage, Scratch
from pipeline.errors import ObjectMissing
from pipeline.postgres.wal.lsn import Lsn
from pipeline.postgres.wal.receiver_status import STATUS, ReceiverStatus

SILENT = timedelta(minutes=1)
"""It speaks every second; a minute is for a repository that is slow to show it."""
SEGMENTS_BEHIND = 4
"""More than that is no burst: at 16 MB each, the link or the disk is slower than the server."""


@check(
    "wal.receiver-streams",
    on=WalArchive,
    severity="blocker",
    advice="Until it streams again, a crash of the server loses all since the last whole segment: "
    "see `pipeline wal status` and the receiver's log, and start `pipeline wal receive`.",
)
def receiver_streams(archive: WalArchive) -> Iterator[Observation]:
    """The WAL receiver lives, streams, and holds what the server wrote but for a few segments."""
    try:
        status = ReceiverStatus.read(archive.repository)
    except ObjectMissing as error:
        yield Observation(STATUS, f"no receiver ever ran here: {error}")
        return
    age = status.age()
    silent = f"process {status.pid} spoke {age} ago for the last time, expected every second"
    yield Observation(STATUS, silent if age > SILENT else None)
    reason = f"nothing is streamed, after {status.restarts} restarts: {status.reason}"
    yield Observation("stream", reason if status.reason else None)
    if not status.reason:
        yield Observation("received", _behind(status, SEGMENTS_BEHIND * archive.segment_size))


def _behind(status: ReceiverStatus, allowed: int) -> str | None:
    if status.behind is None:
        return "it streams, and the server's slot does not say how far"
    if status.behind <= allowed:
        return None
    return (
        f"expected at most {allowed:,} bytes behind the server, found {status.behind:,}: "
        f"received {status.received}, the server has written {status.written}"
    )


@receiver_streams.detects
def receiver_never_started(scratch: Scratch[WalArchive], _rng: Random) -> Damage:
    """Only archive_command was set up."""
    return files.drop(scratch, STATUS).told_as("no receiver ever ran here")


@receiver_streams.detects
def receiver_killed(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """It was killed, and nothing starts it again; the last that it said was good."""
    late = SILENT + timedelta(seconds=rng.randrange(10, 86_400))
    return _says(scratch, STATUS, time=datetime.now(UTC) - late).told_as("for the last time")


@receiver_streams.detects
def receiver_turned_away(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """It lives and is turned away: a changed password, no free slot of the server."""
    reason = "too many connections: max_wal_senders is used up"
    return _says(scratch, "stream", reason=reason, restarts=rng.randrange(2, 99)).told_as(
        "nothing is streamed"
    )


@receiver_streams.detects
def receiver_too_slow(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """It streams through a link that is slower than the server writes."""
    ahead = (SEGMENTS_BEHIND + rng.randrange(1, 50)) * scratch.copy.segment_size
    received = ReceiverStatus.read(scratch.repository).received or Lsn(0)
    return _says(scratch, "received", written=Lsn(received + ahead + 1)).told_as(
        "bytes behind the server"
    )


def _says(scratch: Scratch[WalArchive], subject: str, **changes: object) -> Damage:
    status = ReceiverStatus.read(scratch.repository)
    replace(status, **changes).write(scratch.repository)  # type: ignore[arg-type]  # fields by name
    return Damage(subject, f"the receiver's status says {changes}")
