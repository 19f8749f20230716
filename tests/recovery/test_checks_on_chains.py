"""No check takes a sound chain for damage, and none says PASS of a set that it did not read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from checks import rules
from checks.changed_blocks import brought, every
from checks.check import Check, Examination, Outcome
from checks.pages import changed_file
from checks.proof import opened, told
from checks.restored import TrialRestore
from checks.rules.base_changes import increments_hold_every_change
from checks.subjects import (
    BackupRepository,
    BaseBackup,
    LogicalBackup,
    SourceServer,
    WalArchive,
)
from fixtures.faults import backups, server, sources
from fixtures.material import SOON
from fixtures.scratch import Chained, Material, Scratch
from pipeline.postgres import base_backup
from pipeline.postgres.lsn import PAGE_SIZE, Lsn, segment_name
from pipeline.repository import BackupSet, Repository
from pipeline.store import FolderStore
from pipeline.wait import wait_until

pytestmark = pytest.mark.stack
KINDS = (BaseBackup, BackupRepository, WalArchive, LogicalBackup, TrialRestore)


@pytest.fixture
def chained(material: Material) -> Material:
    assert isinstance(material, Chained)
    return material.chained


def outcomes(scratch: Scratch[Any]) -> dict[str, tuple[Outcome, str]]:
    """What every check of a copy's kind says of it."""
    checks: list[Check[Any]] = list(rules.CATALOGUE.on(scratch.kind))
    with opened(scratch) as copy:
        seen = {check.id: check.run(copy) for check in checks}
    return {name: (one.outcome, told(one)) for name, one in seen.items()}


def alarms(scratch: Scratch[Any]) -> dict[str, str]:
    """Every check that does not pass."""
    found = outcomes(scratch)
    assert found
    return {name: said for name, (one, said) in found.items() if one is not Outcome.PASS}


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


@pytest.fixture
def source(chained: Material) -> Iterator[Scratch[SourceServer]]:
    """A running server whose newest base backup is incremental."""
    with chained.scratch(SourceServer) as scratch:
        yield scratch


def increment(source: Scratch[SourceServer]) -> BackupSet:
    """Take one, and wait for the WAL before it: archiving comes after the backup."""
    backup = base_backup.take(
        source.config, Repository(FolderStore(source.repository)), incremental=True
    )
    facts = backup.manifest.facts
    before = Lsn(Lsn.parse(facts["start_lsn"]) - PAGE_SIZE)
    last = segment_name(facts["timeline"], before, facts["wal_segment_size"])
    archived = source.repository / "wal" / last
    wait_until(last, lambda: None if archived.exists() else "not archived", within=SOON)
    return backup


def changes(source: Scratch[SourceServer]) -> Examination:
    return increments_hold_every_change.run(lambda: WalArchive.of(source.config))


def test_a_chain_that_gains_a_tablespace_raises_no_alarm(source: Scratch[SourceServer]) -> None:
    """Its first increment holds the new files whole, the next one only their changed blocks."""
    place = source.folder / "fast"
    place.mkdir()
    server.own_server(source).tools.own(place)
    server.execute(
        source,
        f"create tablespace fast location '{place}'".encode(),
        "create table shop.quick tablespace fast as select generate_series(1, 9000) as id",
        "vacuum",
    )
    increment(source)
    server.execute(source, "update shop.quick set id = -id where id = 4500")
    increment(source)
    held = BaseBackup.of(source.config).contents.increments
    assert any(name.startswith("pg_tblspc/") for name in held)
    assert len(backups.links(source)) == 5
    assert changes(source).outcome is Outcome.PASS
    for kind in (BaseBackup, BackupRepository, TrialRestore):
        assert alarms(Scratch(kind, source.folder, source.config, source.nonce)) == {}


def test_what_was_cut_off_a_table_is_not_missed(source: Scratch[SourceServer]) -> None:
    """COPY adds pages ahead of need, where deleted rows lay: no record mentions them again."""
    place = source.folder / "rows"
    place.mkdir()
    server.own_server(source).tools.own(place)
    server.execute(
        source,
        "create table shop.long as select n as id, repeat('x', 900) as note"
        " from generate_series(1, 4000) n",
        "vacuum shop.long",
        f"copy (select * from shop.long limit 200) to '{place}/few'".encode(),
    )
    increment(source)
    server.execute(
        source,
        "delete from shop.long where id > 1000",
        "vacuum shop.long",
        f"copy shop.long from '{place}/few'".encode(),
    )
    newest = increment(source)
    file = sources.file_of(source, "shop.long").name
    (cut,) = [one for one in every(brought(newest)) if one.name.endswith(f".{file}")]
    assert all(cut.lacks(block) for block in range(cut.length - 3, cut.length))
    found = changes(source)
    assert (found.outcome, found.problems) == (Outcome.PASS, ())


def test_changes_are_not_judged_by_half_of_the_wal(source: Scratch[SourceServer]) -> None:
    server.execute(source, "update shop.orders set note = '' where id < 900")
    newest = increment(source)
    assert changes(source).outcome is Outcome.PASS
    facts = newest.manifest.facts
    middle = Lsn(Lsn.parse(facts["start_lsn"]) - facts["wal_segment_size"] - PAGE_SIZE)
    name = segment_name(facts["timeline"], middle, facts["wal_segment_size"])
    (source.repository / "wal" / name).unlink()
    found = changes(source)
    assert found.outcome is Outcome.UNKNOWN
    assert name in (found.trouble or "")
