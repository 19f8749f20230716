"""No check takes a sound chain for damage, and none says PASS of a set that it did not read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checks.check import Examination, Outcome
from checks.pages import changed_file
from checks.restored import DigestRestore, TrialRestore
from checks.rules.base_changes import increments_hold_every_change
from checks.rules.repository import room_for_the_next_backup
from checks.rules.restore_digests import rows_as_digested
from checks.subjects import (
    BackupRepository,
    BaseBackup,
    LogicalBackup,
    SourceServer,
    WalArchive,
)
from fixtures.faults import backups, server
from fixtures.scratch import Material, Scratch
from pipeline.postgres.base import chain
from pipeline.postgres.replay.targets import Target, TargetKind
from pipeline.runbooks.plan import make
from tests.recovery.alarms import alarms, outcomes, spread
from tests.recovery.growing import chain_of, increment, switched

KINDS = (BaseBackup, BackupRepository, WalArchive, LogicalBackup, TrialRestore)


@pytest.fixture
def chained(material: Material) -> Material:
    return chain_of(material)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_sound_chain_raises_no_alarm(chained: Material, kind: type[Any]) -> None:
    with chained.scratch(kind) as scratch:
        assert alarms(scratch) == {}


def test_the_chain_is_real(chained: Material) -> None:
    with chained.scratch(BaseBackup) as scratch:
        found = [link.contents for link in scratch.copy.links()]
    *increments, full = found
    assert full.files
    assert not full.increments
    for contents in increments:  # the largest table is one of them in each
        held = {name: contents.pages[name].pages for name in contents.increments}
        table = max(held, key=held.__getitem__)
        assert 3 < held[table] < full.pages[changed_file(table) or ""].pages / 2
        assert 0 in held.values()


def test_workers_share_what_one_of_them_read_of_each_set(chained: Material, tmp_path: Path) -> None:
    with chained.scratch(BaseBackup) as scratch:
        labels = {link.label for link in backups.links(scratch)}
        one, other = (scratch.copy.shared_in(tmp_path) for _ in range(2))
        read = [link.contents for link in one.links()]
        assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == labels
        below = list(other.links())  # their manifests are read, and then no object is
        for entry in (entry for link in below for entry in link.manifest.objects):
            scratch.path(entry.key).unlink()
        assert [link.contents for link in below] == read


def test_where_a_link_is_gone_what_lies_below_was_not_verified(chained: Material) -> None:
    """Every rule of one set is asked of each: half of them must not pass for all."""
    with chained.scratch(BaseBackup) as scratch:
        full, *_ = backups.links(scratch)
        backups.remove_set(scratch, full)
        found = outcomes(scratch)
    for of_the_newest_alone in ("base.tablespaces-have-places", "base.configuration-comes-along"):
        del found[of_the_newest_alone]
    told_of_it = {name: one for name, (one, said) in found.items() if full.label in said}
    assert told_of_it.pop("backup.objects-match-manifest") is Outcome.FAIL
    assert set(told_of_it.values()) == {Outcome.UNKNOWN}
    assert told_of_it.keys() | {"backup.objects-match-manifest"} == found.keys()


def test_a_chain_that_would_fill_the_disk_is_not_brought_back(chained: Material) -> None:
    with chained.scratch(TrialRestore) as scratch:
        full, *_ = backups.links(scratch)
        backups.change_fact(scratch, "database_bytes", 1 << 60, full)
        backups.built_on_what_is_there(scratch)
        found = outcomes(scratch)
    assert {one for one, _ in found.values()} == {Outcome.NOT_RUN}


@pytest.mark.parametrize("name", chain.COMPARED)
def test_a_recovery_goes_round_a_chain_that_cannot_be_proven(chained: Material, name: str) -> None:
    with chained.scratch(BackupRepository) as scratch:
        full, middle, _ = backups.links(scratch)
        backups.drop_fact(scratch, name, middle)
        stated = {**chain.as_fact(middle), "manifest": chain.digest(backups.found(scratch, middle))}
        backups.change_fact(scratch, chain.PARENT, stated)
        newest = backups.latest_base(scratch)
        assert f"of {middle.label} does not tell {name}" in (chain.broken(newest) or "")
        assert make(scratch.config, Target(TargetKind.IMMEDIATE)).backup == full.label


def test_what_builds_on_a_set_is_passed_over_with_it(chained: Material) -> None:
    with chained.scratch(BackupRepository) as scratch:
        full, middle, newest = backups.links(scratch)
        target = Target(TargetKind.IMMEDIATE)
        assert make(scratch.config, target).backup == newest.label
        assert make(scratch.config, target, without=[middle.label]).backup == full.label


def test_room_for_the_next_backup_is_known_where_a_chain_is_broken(chained: Material) -> None:
    with chained.scratch(BackupRepository) as scratch:
        backups.remove_set(scratch, backups.links(scratch)[1])
        found = room_for_the_next_backup.run(lambda: scratch.copy)
    assert (found.outcome, found.trouble) == (Outcome.PASS, None)


@pytest.fixture
def source(chained: Material) -> Iterator[Scratch[SourceServer]]:
    """A running server whose newest base backup is incremental."""
    with chained.scratch(SourceServer) as scratch:
        yield scratch


def test_a_chain_that_gains_a_tablespace_raises_no_alarm(source: Scratch[SourceServer]) -> None:
    """Its first increment holds the new files whole, the next one only their changed blocks."""
    spread(source)
    increment(source)
    server.execute(source, "update shop.quick set id = -id where id = 4500")
    increment(source)
    held = BaseBackup.of(source.config).contents.increments
    assert any(name.startswith("pg_tblspc/") for name in held)
    assert len(backups.links(source)) == 5
    changes = increments_hold_every_change.run(lambda: WalArchive.of(source.config))
    assert (changes.outcome, changes.problems) == (Outcome.PASS, ())
    assert alarms(source, BaseBackup, BackupRepository, TrialRestore) == {}


def test_digests_of_a_chain_are_held_against_that_chain(source: Scratch[SourceServer]) -> None:
    """Or else against nothing: the full set below can be replayed to the same rows."""
    server.execute(source, "update shop.orders set note = '' where id < 900")
    newest = increment(source, digests=True)
    switched(source)
    source.keep_up()

    def judged() -> Examination:
        return rows_as_digested.run(lambda: DigestRestore.of(source.config))

    assert judged().outcome is Outcome.PASS
    backups.remove_set(source, backups.links(source)[-2])
    found = judged()
    assert found.outcome is Outcome.UNKNOWN
    assert newest.label in (found.trouble or "")
