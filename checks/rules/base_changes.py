"""What changed between two backups, by the WAL: what an increment lacks comes back as it was."""

from collections.abc import Iterator
from itertools import islice, pairwise
from random import Random

from checks.changed_blocks import Brought, Increments, brought, compare, every, forget
from checks.check import Observation, check
from checks.links import named
from checks.pages import changed_file
from checks.subjects import WalArchive
from fixtures.faults import backups, increments
from fixtures.scratch import Damage, Scratch
from pipeline.errors import RestoreError
from pipeline.postgres.base import base_backup, chain
from pipeline.postgres.history.waldump import Reading
from pipeline.postgres.server.tools import Tools
from pipeline.postgres.wal.lsn import Lsn, as_record_end
from pipeline.postgres.wal.segments import MergedWal, reading_view
from pipeline.repository import kinds
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore

_SHOWN = 5  # blocks of one file


@check(
    "base.increments-hold-every-change",
    on=WalArchive,
    severity="blocker",
    advice="A restore of this set would bring back old rows; besides this check only "
    "restore.rows-as-digested could tell, which unpacks the set: take a full backup now, restore "
    "from the full set below with the archived WAL, and report it to PostgreSQL's developers: its "
    "summary of WAL missed a change.",
)
def increments_hold_every_change(archive: WalArchive) -> Iterator[Observation]:
    """Every block that changed since the set below, by the WAL, is in each set of the chain."""
    newest = kinds.newest(Repository(FolderStore(archive.repository)), base_backup.KIND)
    yield Observation(newest.label, None)
    links = chain.links(newest)
    if len(links) == 1:
        return  # a full one holds every block
    timeline = int(newest.manifest.facts["timeline"])  # that of every link
    with reading_view(archive.repository, timeline, archive.tools) as wal:
        for link, below in pairwise(reversed(links)):
            for one in every(_compared(link, below, wal, archive.tools)):
                subject = one.name if link is newest else named(link.label, one.name)
                yield Observation(subject, _told(one))


def _compared(link: BackupSet, below: BackupSet, wal: MergedWal, tools: Tools) -> Increments:
    """Hold the increments of one set against the WAL since the start of the one below.

    Where one link ends the next begins: the WAL of a chain is read once.
    """
    start, end = (Lsn.parse(link.manifest.facts[name]) for name in ("start_lsn", "end_lsn"))
    since = Lsn.parse(below.manifest.facts["start_lsn"])
    held = brought(link)
    # a backup on a primary starts behind the header of a segment, which is archived after it
    reading = Reading(wal, tools, start=since, end=as_record_end(start, wal.segment_size))
    compare(held, reading)
    _refuse_half(reading)
    if any(one.missing for one in every(held)):
        reading = Reading(wal, tools, start=start, end=end)
        forget(held, reading)
        _refuse_half(reading)
    return held


def _refuse_half(reading: Reading) -> None:
    if not reading.end.complete:
        raise RestoreError(f"the WAL is read to {reading.end.lsn}: {reading.end.reason}")


def _told(one: Brought) -> str | None:
    if not one.missing:
        return None
    shown = ", ".join(str(one.first + block) for block in islice(one.missing, _SHOWN))
    more = f" and {len(one.missing) - _SHOWN} more" if len(one.missing) > _SHOWN else ""
    return f"by the WAL it changed in blocks {shown}{more}: not here"


@increments_hold_every_change.detects_in_a_chain
def changed_block_left_out(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """A change that the summary of WAL missed: every page, list and digest is right."""
    return _leave_block_out(scratch, rng, backups.latest_base(scratch)).told_as(
        "by the WAL it changed in"
    )


@increments_hold_every_change.detects_in_a_chain
def changed_block_left_out_of_a_link(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """The same in an increment below the newest one, with which a restore combines it."""
    _, middle, _ = backups.links(scratch)
    done = _leave_block_out(scratch, rng, middle)
    return Damage(named(middle.label, done.subject), done.what, says="by the WAL it changed in")


@increments_hold_every_change.detects_in_a_chain
def changes_of_a_table_left_out(scratch: Scratch[WalArchive], _rng: Random) -> Damage:
    """The summary of a day that never heard of a table: it would come back as of the day before."""
    name = _most_changed(backups.latest_base(scratch))
    increments.change_increment(scratch, name, increments.unchanged)
    return Damage(
        name,
        f"it says that nothing of {changed_file(name)} changed, all lists agree",
        says="by the WAL it changed in",
    )


def _leave_block_out(scratch: Scratch[WalArchive], rng: Random, backup: BackupSet) -> Damage:
    name = _most_changed(backup)
    block = rng.choice(increments.numbers(backups.content_of(scratch, backup, name)))
    increments.change_increment(
        scratch, name, lambda content: increments.without_block(content, block), backup
    )
    return Damage(name, f"block {block} of {changed_file(name)} was left out, all lists agree")


def _most_changed(backup: BackupSet) -> str:
    """An increment of the data folder; of no other file did so many blocks change."""
    inside = (one for one in every(brought(backup)) if one.name.startswith("base/"))
    return max(inside, key=lambda one: len(one.held)).name
