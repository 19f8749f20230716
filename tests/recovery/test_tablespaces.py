"""Tablespaces are backed up with the rest, and a restore never writes into those of a server."""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from threading import Thread
from typing import Any

import psutil
import pytest

from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component
from fixtures.stacks.versions import major
from pipeline.errors import BackupError, PlaceTaken, RestoreError
from pipeline.postgres.base import base_backup, tablespaces
from pipeline.postgres.base.restore import unpack
from pipeline.postgres.replay.targets import Target
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks.base_restore import restore_base
from pipeline.runbooks.plan import Plan, make
from pipeline.runbooks.point_in_time import new_recovery
from pipeline.wait import wait_until
from tests.recovery.dying import crash_everywhere
from tests.recovery.history import SOON, Source, copied, flipped
from tests.recovery.spread import STATE, Spread, spread_over
from tests.recovery.unpacked import free_place, state_of
from tests.recovery.without_connect import recovery


def own(version: int | None = None) -> str:
    """How the server's own folder in a tablespace begins, or that of another version."""
    return f"PG_{version or major()}_"


@pytest.fixture(scope="module")
def spread(breakable: NativeStack) -> Spread:
    return spread_over(Source(breakable).prepared())


@pytest.fixture
def into(spread: Spread) -> Iterator[Path]:
    """A place for a restore that does not exist yet."""
    yield from free_place(spread.source)


def fingerprint(folders: dict[str, Path]) -> list[tuple[str, int, int]]:
    """Every file of the server's own tablespaces, with its size and its last change."""
    found = (path for place in folders.values() for path in sorted(place.rglob("*")))
    return [(str(path), (s := path.stat()).st_size, s.st_mtime_ns) for path in found]


def test_each_tablespace_is_an_object_and_the_manifest_says_where_it_was(spread: Spread) -> None:
    facts = spread.backup.manifest.facts
    assert {t["name"]: Path(t["location"]) for t in facts[tablespaces.FACT]} == spread.places
    names = [entry.key.rpartition("/")[2] for entry in spread.backup.manifest.objects]
    oids = [spread.oid("early"), spread.oid("late")]
    assert names == ["base.tar.zst", *(f"{oid}.tar.zst" for oid in oids), "backup_manifest.zst"]
    assert [base_backup.tablespace_of(e) for e in base_backup.archives(spread.backup)] == [
        "",
        *oids,
    ]


@pytest.mark.parametrize("name", ["full", "increment"])
def test_a_trial_keeps_them_in_place_and_leaves_the_server_alone(
    spread: Spread, into: Path, name: str
) -> None:
    spread.source.run("checkpoint")
    before = fingerprint(spread.places)
    unpack(spread.source.backups[name], into, spread.source.tools)
    assert not (into / tablespaces.MAP).exists()
    assert [path for path in (into / tablespaces.LINKS).iterdir() if path.is_symlink()] == []
    assert state_of(into, spread.source, STATE) == spread.states[name]
    assert fingerprint(spread.places) == before


@pytest.mark.parametrize("name", ["full", "increment"])
def test_they_can_be_restored_to_other_places(spread: Spread, into: Path, name: str) -> None:
    backup = spread.source.backups[name]
    before = fingerprint(spread.places)
    places = {
        oid: into.with_name(f"{into.name}-{oid}") for oid in tablespaces.original_places(backup)
    }
    unpack(backup, into, spread.source.tools, places)
    assert state_of(into, spread.source, STATE) == spread.states[name]
    for oid, place in places.items():
        told = state_of(into, spread.source, f"select pg_tablespace_location({oid})")
        assert told == (str(place),)
        assert [path.name[:6] for path in place.iterdir()] == [own()]
        shutil.rmtree(place)
    assert fingerprint(spread.places) == before


def test_a_place_that_holds_a_tablespace_is_refused_by_name(spread: Spread, into: Path) -> None:
    before = fingerprint(spread.places)
    with pytest.raises(RestoreError, match=rf"{spread.places['early']}/{own()}\d+ exists"):
        unpack(spread.backup, into, spread.source.tools, tablespaces.original_places(spread.backup))
    assert fingerprint(spread.places) == before
    assert not into.exists()


def test_a_place_that_is_taken_is_not_mistaken_for_a_damaged_backup(
    spread: Spread, into: Path
) -> None:
    """The server's own folders are taken; an older backup would find them so as well."""
    plan = make(spread.source.config, Target.parse("immediate"))
    tried: list[dict[str, str]] = []

    def again(damaged: dict[str, str]) -> Plan:
        tried.append(damaged)
        return plan

    with pytest.raises(PlaceTaken, match="exists: a restore never writes into existing data"):
        restore_base(
            plan,
            spread.backup.store,
            into,
            spread.source.tools,
            recovery="one",
            kept_as=None,
            again=again,
            progress=lambda _: None,
        )
    assert not tried
    assert not into.exists()


def test_two_tablespaces_do_not_share_a_place(spread: Spread, into: Path) -> None:
    together = into.with_name("together")
    places = dict.fromkeys(tablespaces.original_places(spread.backup), together)
    with pytest.raises(RestoreError, match="would share a location"):
        unpack(spread.backup, into, spread.source.tools, places)
    assert not together.exists()


def test_a_damaged_tablespace_is_refused_by_name(
    spread: Spread, into: Path, tmp_path: Path
) -> None:
    config = spread.source.config
    folder = spread.source.stack.folder / "scratch" / tmp_path.name
    copy = copied(config.repository.path, folder, spread.source.tools)
    entry = spread.backup.manifest.objects[2]
    assert base_backup.tablespace_of(entry) == spread.oid("late")
    flipped(copy / entry.key, entry.size // 2)
    backup = Repository(FolderStore(copy)).get(spread.backup.label)
    place = into.with_name(f"{into.name}-late")
    with pytest.raises(RestoreError, match=f"{entry.key}: expected {entry.size} bytes"):
        unpack(backup, into, spread.source.tools, {spread.oid("late"): place})
    assert not into.exists()
    assert list(place.iterdir()) == []


def kill_pg_basebackup_when_it_comes() -> None:
    def killed() -> str | None:
        for process in psutil.Process().children():
            if process.name() == "pg_basebackup":
                process.kill()
                return None
        return "it did not start"

    wait_until("pg_basebackup", killed, within=SOON)


def test_a_killed_program_leaves_no_set_and_no_folder(spread: Spread, tmp_path: Path) -> None:
    config = spread.source.config
    killer = Thread(target=kill_pg_basebackup_when_it_comes)
    killer.start()
    with pytest.raises(BackupError, match="no backup was taken: pg_basebackup ended with exit"):
        base_backup.take(config, Repository(FolderStore(tmp_path / "r")))
    killer.join()
    assert list((tmp_path / "r").rglob("*")) == []
    assert list(config.repository.path.glob(".unfinished-*")) == []


def test_what_a_killed_backup_left_is_removed_by_the_next_and_no_running_one(
    spread: Spread,
) -> None:
    root, tools = spread.source.config.repository.path, spread.source.tools
    abandoned = root / ".unfinished-base-dead"
    abandoned.mkdir()
    (abandoned / "base.tar").write_bytes(b"half")
    with tablespaces.staging(root, tools) as running:
        assert not abandoned.exists()
        with tablespaces.staging(root, tools) as other:
            assert running.exists()
        assert not other.exists()
    assert not running.exists()


def elsewhere(backup: BackupSet, into: Path) -> dict[str, Path]:
    return {oid: into.with_name(f"place-of-{oid}") for oid in tablespaces.original_places(backup)}


def test_a_restore_that_is_killed_anywhere_leaves_nothing_by_its_name(
    spread: Spread, into: Path, seed: int
) -> None:
    _crash(spread, into, sorted(Random(seed).sample(range(20, 33), 1)))


@pytest.mark.slow
def test_a_restore_that_is_killed_at_every_step_can_be_done_again(
    spread: Spread, into: Path
) -> None:
    assert _crash(spread, into, itertools.count(1)) > 20


def _crash(spread: Spread, into: Path, strikes: Any) -> int:  # noqa: ANN401 - any integers
    places = elsewhere(spread.backup, into)

    def run() -> int:
        return unpack(spread.backup, into, spread.source.tools, places)

    last = crash_everywhere(strikes, into, run, places.values())
    if not into.exists():
        run()
    assert state_of(into, spread.source, STATE) == spread.states["increment"]
    for place in places.values():
        assert [path.name[:6] for path in place.iterdir()] == [own()]
        shutil.rmtree(place)
    return last


def test_what_lies_in_a_place_is_kept_under_the_name_that_was_told(
    spread: Spread, into: Path
) -> None:
    places = elsewhere(spread.backup, into)
    older = f"{own(major() - 1)}1/5/1"
    foreign = dict.fromkeys(places.values(), (f"{own()}1/5/1", older, "by/hand"))
    for place, names in foreign.items():
        for name in names:
            (place / name).parent.mkdir(parents=True)
            (place / name).write_text(name)
    unpack(spread.backup, into, spread.source.tools, places, kept_as="aside")
    for place in places.values():
        assert (place / f"aside/{own()}1/5/1").read_text() == f"{own()}1/5/1"
        for name in (older, "by/hand"):
            assert (place / name).read_text() == name
    assert state_of(into, spread.source, STATE) == spread.states["increment"]
    for place in places.values():
        shutil.rmtree(place)


# these begin with a new server, where the others were: they come last


def test_a_recovery_brings_them_back_and_keeps_the_damaged_ones(source: Source) -> None:
    spread = spread_over(source)
    kept = source.write("kept")
    source.expect(kept.after)
    source.run("update late set body = 'written after the target'", "checkpoint")
    dropped = source.write("dropped")
    source.expect(dropped.after)
    source.backups["one"] = spread.backup
    running = recovery(source, new_recovery(source.config), f"xid:{kept.xid}")
    running.run()
    assert source.run(STATE) == spread.states["increment"]
    salvaged = running.journal.done()["salvage"]
    damaged = Path(salvaged["set_aside"])
    for name, place in spread.places.items():
        aside = Path(salvaged["tablespaces_set_aside"][spread.oid(name)])
        assert aside.parent == place
        assert (damaged / tablespaces.LINKS / spread.oid(name)).readlink() == aside
        assert [path.name[:6] for path in aside.iterdir()] == [own()]
    with_new_rows = "select count(*) from late where body = 'written after the target'"
    assert source.run(with_new_rows) == 0
    assert state_of(damaged, source, with_new_rows) == (500,)


def test_a_recovery_puts_aside_what_a_lost_data_folder_left_behind(source: Source) -> None:
    """The links to the locations are lost with it; the backup tells where they were."""
    spread = spread_over(source)
    kept = source.write("kept")
    source.expect(kept.after)
    source.archive()
    source.stack.kill(Component.POSTGRES)
    data = source.config.postgres.data
    assert data is not None
    shutil.rmtree(data)
    left = {name: [path.name for path in place.iterdir()] for name, place in spread.places.items()}
    source.backups["one"] = spread.backup
    running = recovery(source, new_recovery(source.config), f"xid:{kept.xid}")
    running.run()
    assert source.run(STATE) == spread.states["increment"]
    restored = running.journal.done()["restore"]["tablespaces_set_aside"]
    for name, place in spread.places.items():
        aside = Path(restored[spread.oid(name)])
        assert aside.parent == place
        assert [path.name for path in aside.iterdir()] == left[name]


def test_a_place_that_leads_elsewhere_than_the_server_is_known_beforehand(
    spread: Spread, tmp_path: Path
) -> None:
    """Asked while the server runs: its own tablespaces will be put aside with it."""
    data = spread.source.data
    own_places = tablespaces.original_places(spread.backup)
    tablespaces.refuse_misplaced(own_places, data, major())
    oid = next(iter(own_places))
    with pytest.raises(PlaceTaken, match="inside of the data folder"):
        tablespaces.refuse_misplaced({oid: data / "base"}, data, major())
    (tmp_path / f"{own()}202506291").mkdir()
    with pytest.raises(PlaceTaken, match="does not use it: nothing was touched"):
        tablespaces.refuse_misplaced({oid: tmp_path}, data, major())
