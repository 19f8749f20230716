"""The WAL archive: a hole in it is seen by no tool, and found at the end of a recovery."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random

from checks.check import Observation, check
from checks.subjects import WalArchive
from checks.wal_pages import Origin, page_trouble
from fixtures.faults import files
from fixtures.faults.wal import flip_record_bit
from fixtures.scratch import Damage, Scratch
from pipeline.errors import StoreError
from pipeline.postgres.history.waldump import Reading
from pipeline.postgres.wal.lsn import PAGE_SIZE, Lsn, parse_segment, segment_name, segment_start
from pipeline.postgres.wal.timelines import lineage

ON_ITS_WAY = timedelta(minutes=1)
"""How long a finished segment may take into the archive before it counts as missing."""
TIMELINE = slice(4, 8)  # in the header of a page
SYSTEM_ID = slice(24, 32)  # in the header of a segment


@check(
    "wal.archive-complete",
    on=WalArchive,
    severity="blocker",
    advice="Moments after the hole cannot be reached from the backups before it: take a base "
    "backup now, then look for the segment on the server (pg_wal) and in `stream/`.",
)
def archive_complete(archive: WalArchive) -> Iterator[Observation]:
    """Every WAL segment from the oldest usable base backup to the expected end is archived."""
    required = archive.required()
    if datetime.now(UTC) - archive.end.time < ON_ITS_WAY:
        required = required[:-1]
    with archive.as_recovery_sees_it() as wal:
        for segment in required:
            present = segment in wal.segments
            absent = wal.unusable.get(segment, "not in the archive")
            yield Observation(segment, None if present else absent)


@archive_complete.detects
def middle_segment_missing(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """archive_command said yes and the file never arrived."""
    segment = rng.choice(scratch.copy.required()[1:-2])
    return replace(files.drop(scratch, f"wal/{segment}"), subject=segment).told_as(
        "not in the archive"
    )


@archive_complete.detects
def first_segment_missing(scratch: Scratch[WalArchive], _rng: Random) -> Damage:
    """Retention by age removed WAL that the oldest base backup still needs."""
    segment = scratch.copy.required()[0]
    return replace(files.drop(scratch, f"wal/{segment}"), subject=segment).told_as(
        "not in the archive"
    )


@archive_complete.detects
def newest_segments_missing(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """Archiving stopped and the server went on: only the expected end knows that WAL is missing."""
    end, ahead = scratch.copy.end, rng.randrange(3, 20) * scratch.copy.segment_size
    replace(end, lsn=end.lsn + ahead).write(scratch.repository)
    return Damage(scratch.copy.required()[-2], "it was never archived", says="not in the archive")


@check(
    "wal.segment-sizes",
    on=WalArchive,
    severity="blocker",
    advice="PostgreSQL refuses a segment of another size, and ends recovery there. Copy it again "
    "from the server or from `stream/`; else take a base backup now.",
)
def segment_sizes(archive: WalArchive) -> Iterator[Observation]:
    """Every archived WAL segment is as long as the server's segments are."""
    for path in archive.segments():
        size = path.stat().st_size
        short = f"expected {archive.segment_size} bytes, found {size}"
        yield Observation(archive.key(path), None if size == archive.segment_size else short)


@segment_sizes.detects
def segment_truncated(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """A full disk, and an archive_command that does not tell."""
    return files.truncate(scratch, _segment(scratch, rng), rng).told_as(" bytes, found")


@segment_sizes.detects
def segment_longer(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """Two servers that archive under one name."""
    return files.append(scratch, _segment(scratch, rng), rng).told_as(" bytes, found")


def _segment(scratch: Scratch[WalArchive], rng: Random) -> str:
    """One of the segments that are full, and so have no meaningless end."""
    archive = scratch.copy
    after_backup = Lsn.parse(archive.base.facts["end_lsn"])
    full = [
        path
        for path in archive.segments()
        if path.name in archive.required()
        and parse_segment(path.name, archive.segment_size).start >= after_backup
        and any(path.read_bytes()[-PAGE_SIZE:])
    ]
    return archive.key(rng.choice(full))


@check(
    "wal.page-headers",
    on=WalArchive,
    severity="blocker",
    advice="Recovery would end at this segment and report success. Copy it again from the server "
    "or from `stream/`; else take a base backup now, and find out who writes to the archive.",
)
def page_headers(archive: WalArchive) -> Iterator[Observation]:
    """Every page of every archived segment is of this server, this timeline and this position."""
    facts, size = archive.base.facts, archive.segment_size
    major = facts["server_version_num"] // 10_000
    spans_of = cache(lambda timeline: lineage(timeline, archive.folders))
    for path in archive.segments():
        spans = spans_of(parse_segment(path.name, size).timeline)
        origin = Origin(facts["system_identifier"], major, size, spans)
        yield Observation(archive.key(path), page_trouble(path, origin))


@page_headers.detects
def segment_zeroed(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """A file whose size was reserved and whose content never reached the disk."""
    key = _segment(scratch, rng)
    return files.zero_fill(scratch, key, 0, scratch.copy.segment_size).told_as(
        "its first page is empty"
    )


@page_headers.detects
def pages_zeroed(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """A write that was torn in the middle of the file."""
    pages = scratch.copy.segment_size // PAGE_SIZE
    first = rng.randrange(1, pages // 2)
    last = rng.randrange(first + 1, pages - 1)
    return files.zero_fill(
        scratch, _segment(scratch, rng), first * PAGE_SIZE, last * PAGE_SIZE
    ).told_as("nothing at offset")


@page_headers.detects
def content_of_another_segment(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """Names and contents that were mixed up by a copy."""
    one = _segment(scratch, rng)
    names = [scratch.copy.key(path) for path in scratch.copy.segments()]
    return files.swap(scratch, one, rng.choice([name for name in names if name != one])).told_as(
        "the page is that of"
    )


@page_headers.detects
def segment_of_another_server(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """Two servers share one archive."""
    start, stop = SYSTEM_ID.start, SYSTEM_ID.stop
    return files.flip_bit(scratch, _segment(scratch, rng), rng, start=start, stop=stop).told_as(
        "it is of server"
    )


@check(
    "wal.records-readable",
    on=WalArchive,
    severity="blocker",
    advice="Recovery would end at this record and report success. Copy the segment again from the "
    "server or from `stream/`; else take a base backup now.",
)
def records_readable(archive: WalArchive) -> Iterator[Observation]:
    """Every WAL record from the base backup to the expected end can be read by pg_waldump."""
    position, until = archive.start, archive.whole_until
    sound = dict.fromkeys(archive.required())
    with archive.as_recovery_sees_it() as wal:
        while position < until:
            # one kind of record is enough to print: all are read and checked
            reading = Reading(wal, archive.tools, start=position, end=until, rmgrs=("XLOG",))
            for _ in reading:
                pass
            end = reading.end
            name = end.segment or segment_name(end.timeline, end.lsn, archive.segment_size)
            if "could not open" in end.reason:
                raise StoreError(end.reason)  # it tells of this machine, not of the archive
            if end.complete:
                break
            sound.pop(name, None)
            yield Observation(name, f"readable up to {end.lsn}: {end.reason}")
            # at least one segment further: what cannot be read at all ends where nothing began
            told = parse_segment(name, archive.segment_size).start
            here = segment_start(position, archive.segment_size)
            position = Lsn(max(told, here) + archive.segment_size)
    for name in sound:
        yield Observation(name, None)


@records_readable.detects
def record_bit_flipped(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """Bit rot in one record: PostgreSQL takes it for the end of the WAL."""
    key = _segment(scratch, rng)
    return replace(flip_record_bit(scratch, key, rng), subject=Path(key).name).told_as(
        "the WAL is damaged in"
    )


@records_readable.detects
def end_of_segment_lost(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """The cache of a disk lost the last pages; what is left looks like a switched segment."""
    key, size = _segment(scratch, rng), scratch.copy.segment_size
    pages = rng.randrange(4, size // PAGE_SIZE // 2)
    done = files.zero_fill(scratch, key, size - pages * PAGE_SIZE, size)
    return replace(done, subject=Path(key).name).told_as("the WAL is damaged in")


@records_readable.detects
def whole_segment_of_another_server(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """Another server archives into this repository; its sound neighbours must not be blamed."""
    done = segment_of_another_server(scratch, rng)
    return replace(done, subject=Path(done.subject).name, says="is of the server with")


@records_readable.detects
def segment_emptied(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """A file that was made, and never written."""
    key = _segment(scratch, rng)
    scratch.path(key).write_bytes(b"")
    return Damage(Path(key).name, "it is empty", says="readable up to ")


@page_headers.detects
def page_of_another_branch(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """A segment of a server that was promoted elsewhere, under the name of this one's."""
    page = rng.randrange(1, scratch.copy.segment_size // PAGE_SIZE)
    start = page * PAGE_SIZE + TIMELINE.start
    stop = page * PAGE_SIZE + TIMELINE.stop
    return files.flip_bit(scratch, _segment(scratch, rng), rng, start=start, stop=stop).told_as(
        "the page is of timeline"
    )
