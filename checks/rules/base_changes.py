"""What changed between two backups, by the WAL: what an increment lacks comes back as it was."""

from collections.abc import Iterator
from random import Random

from checks.changed_blocks import brought, compare, every
from checks.check import Observation, check
from checks.pages import changed_file
from checks.subjects import WalArchive
from fixtures.faults import backups, increments
from fixtures.scratch import Damage, Scratch
from pipeline.errors import RestoreError
from pipeline.postgres import chain
from pipeline.postgres.lsn import Lsn
from pipeline.postgres.segments import reading_view
from pipeline.postgres.waldump import Reading
from pipeline.repository import BackupSet

_SHOWN = 5  # blocks of one file


@check(
    "base.increments-hold-every-change",
    on=WalArchive,
    severity="blocker",
    advice="A restore of this set would bring back old rows, and no digest would differ: take a "
    "full backup now, restore from the full set below with the archived WAL, and report it to "
    "PostgreSQL's developers: its summary of WAL missed a change.",
)
def increments_hold_every_change(archive: WalArchive) -> Iterator[Observation]:
    """Every block that changed since the set below, by the WAL, is in the newest base backup."""
    *_, newest = archive.bases()
    below = chain.parent(newest)
    yield Observation(newest.label, None)
    if below is None:
        return  # a full one holds every block
    since, until = (Lsn.parse(one.manifest.facts["start_lsn"]) for one in (below, newest))
    held = brought(newest)
    timeline = int(newest.manifest.facts["timeline"])
    with reading_view(archive.repository, timeline, archive.tools) as wal:
        reading = Reading(wal, archive.tools, start=since, end=until)
        compare(held, reading)
        if not reading.end.complete:
            raise RestoreError(f"from {since} to {until}: {reading.end.reason}")
    for one in every(held):
        yield Observation(one.name, _told(sorted(one.missing)))


def _told(missing: list[int]) -> str | None:
    if not missing:
        return None
    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    return (
        f"by the WAL it changed in blocks {', '.join(map(str, missing[:_SHOWN]))}{more}: not here"
    )


@increments_hold_every_change.detects_in_a_chain
def changed_block_left_out(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """A change that the summary of WAL missed: every page, list and digest is right."""
    newest = backups.latest_base(scratch)
    name = _most_changed(newest)
    block = rng.choice(increments.numbers(backups.content_of(scratch, newest, name)))
    increments.change_increment(
        scratch, name, lambda content: increments.without_block(content, block)
    )
    return Damage(name, f"block {block} of {changed_file(name)} was left out, all lists agree")


@increments_hold_every_change.detects_in_a_chain
def changes_of_a_table_left_out(scratch: Scratch[WalArchive], _rng: Random) -> Damage:
    """The summary of a day that never heard of a table: it would come back as of the day before."""
    name = _most_changed(backups.latest_base(scratch))
    increments.change_increment(scratch, name, increments.unchanged)
    return Damage(name, f"it says that nothing of {changed_file(name)} changed, all lists agree")


def _most_changed(newest: BackupSet) -> str:
    """An increment of the data folder; of no other file did so many blocks change."""
    inside = (one for one in every(brought(newest)) if one.name.startswith("base/"))
    return max(inside, key=lambda one: sum(byte.bit_count() for byte in one.held)).name
