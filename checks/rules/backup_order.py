"""Base backups beside each other: whether what sorts later was taken later."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random

from checks.check import Observation, check
from checks.recency import told_elsewhere
from checks.subjects import BackupRepository
from fixtures.faults import backups
from fixtures.scratch import Damage, Scratch
from pipeline.postgres.base import base_backup
from pipeline.postgres.wal.lsn import Lsn
from pipeline.repository.sets import BackupSet


@check(
    "backup.sets-in-order",
    on=BackupRepository,
    severity="critical",
    advice="A clock was wrong when the named set was taken: what passes for the newest is not. "
    "Name the set that you mean in a restore, set the clock, and take a new backup.",
)
def sets_in_order(repository: BackupRepository) -> Iterator[Observation]:
    """Base backups of a server that sort later end later in its WAL."""
    ends: dict[tuple[str, int], tuple[Lsn, str]] = {}
    for backup in repository.sets.sets(base_backup.KIND, told_elsewhere):
        facts = backup.manifest.facts
        if {"system_identifier", "timeline", "end_lsn"} - facts.keys():
            continue  # another check names it
        line, end = (facts["system_identifier"], facts["timeline"]), Lsn.parse(facts["end_lsn"])
        before, label = ends.get(line, (end, ""))
        ends[line] = max((end, backup.label), (before, label))
        wrong = f"it ends at {end}, and {label}, which sorts before it, at {before}"
        yield Observation(backup.label, wrong if end < before else None)


def _dated(scratch: Scratch[BackupRepository], at: datetime, end: str) -> BackupSet:
    """Commit the newest set once more, as one of another moment that ends there."""
    newest = backups.latest_base(scratch)
    label = scratch.copy.sets.new_label(newest.kind, at)
    facts = newest.manifest.facts | {"end_lsn": end}
    changes = {"label": label, "started": at, "finished": at, "facts": facts}
    return scratch.copy.sets.commit(newest.manifest.model_copy(update=changes))


@sets_in_order.detects
def later_set_dated_before(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """The clock was behind while a later backup was taken."""
    newest = backups.latest_base(scratch)
    beyond = Lsn.parse(newest.manifest.facts["end_lsn"]) + rng.randrange(1, 1 << 30)
    earlier = newest.manifest.started - timedelta(minutes=rng.randrange(1, 9999))
    _dated(scratch, earlier, str(beyond))
    return Damage(newest.label, "a later set sorts before it", says="which sorts before it")


@sets_in_order.detects
def older_set_dated_after(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """The clock was ahead while an older backup was taken, and nobody noticed for a while."""
    later = datetime.now(UTC) + timedelta(seconds=rng.randrange(1, 99))
    misdated = _dated(scratch, later, "0/28")
    return Damage(
        misdated.label, "it ends before the one that sorts before it", says="which sorts before it"
    )
