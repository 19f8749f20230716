"""A base backup is whole or it is none, and only a whole one comes back."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component
from pipeline.errors import BackupError, ObjectMissing, RestoreError
from pipeline.postgres.base import base_backup, tablespaces
from pipeline.postgres.base.place import UNFINISHED
from pipeline.postgres.base.restore import unpack
from pipeline.postgres.wal.lsn import Lsn
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore
from tests.recovery.history import History, copied, flipped, replaced
from tests.recovery.interrupted import Interrupted
from tests.recovery.unpacked import opened

DIGEST = """
    select (select md5(string_agg(t::text, ',' order by id)) from notes t
             where note not in ('five', 'six', 'last')),
           (select md5(string_agg(t::text, ',' order by id)) from documents t),
           (select count(*) from documents)
"""


def kill_pg_basebackup() -> None:
    (process,) = [c for c in psutil.Process().children() if c.name() == "pg_basebackup"]
    process.kill()


@pytest.fixture
def damageable(history: History, tmp_path: Path) -> tuple[BackupSet, Path]:
    """A backup set in a repository of its own, and the file of its object."""
    folder = history.source.stack.folder / "scratch" / tmp_path.name
    repository = copied(history.repository, folder, history.source.tools)
    backup = Repository(FolderStore(repository)).get(history.source.backups["second"].label)
    return backup, repository / backup.manifest.objects[0].key


def test_the_manifest_tells_what_a_restore_must_know(history: History) -> None:
    manifest = history.source.backups["second"].manifest
    facts, source = manifest.facts, history.source
    assert facts["system_identifier"] == source.run(
        "select system_identifier::text from pg_control_system()"
    )
    assert facts["server_version_num"] == int(source.run("show server_version_num"))
    assert (facts["wal_segment_size"], facts["timeline"], facts["tablespaces"]) == (16 << 20, 1, 2)
    assert facts["data_checksums"] is True
    assert facts["databases"] == ["postgres", "template0", "template1"]
    assert {table["name"] for table in facts["tables"]} == {"notes", "documents"}
    four, five = source.commits["four"], source.commits["five"]
    start, end = Lsn.parse(facts["start_lsn"]), Lsn.parse(facts["end_lsn"])
    assert four.after <= start < end < five.after
    assert Lsn.parse(facts["inventory_lsn"]) <= start
    assert four.time.isoformat() < facts["end_time"] < five.time.isoformat()
    assert manifest.started <= manifest.finished


def test_what_comes_back_are_the_same_rows(history: History, into: Path) -> None:
    backup, source = history.source.backups["second"], history.source
    assert unpack(backup, into, source.tools) == backup.manifest.objects[0].size
    with opened(into, source) as connection:
        restored = connection.execute(DIGEST.encode()).fetchone()
        ((committed_later,),) = connection.execute(
            "select count(*) from notes where note in ('five', 'six', 'last')"
        ).fetchall()
    assert committed_later == 0
    assert restored == source.run(DIGEST)
    assert restored is not None
    assert restored[2] == 300


def flip(path: Path, _other: Path, *, at: float) -> None:
    flipped(path, int(path.stat().st_size * at))


def truncate(path: Path, _other: Path) -> None:
    replaced(path, path.read_bytes()[:-1000])


def empty(path: Path, _other: Path) -> None:
    replaced(path, b"")


def lengthen(path: Path, _other: Path) -> None:
    replaced(path, path.read_bytes() + b"\0")


def swap(path: Path, other: Path) -> None:
    replaced(path, other.read_bytes())


DAMAGES: dict[str, Callable[[Path, Path], None]] = {
    "a bit at the start": lambda path, other: flip(path, other, at=0.0),
    "a bit of the first blocks": lambda path, other: flip(path, other, at=0.01),
    "a bit in the middle": lambda path, other: flip(path, other, at=0.5),
    "a bit at the end": lambda path, other: flip(path, other, at=0.9999),
    "truncated": truncate,
    "empty": empty,
    "lengthened": lengthen,
    "the object of another backup": swap,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_object_is_refused_by_name_and_nothing_is_left(
    history: History,
    damageable: tuple[BackupSet, Path],
    into: Path,
    damage: Callable[[Path, Path], None],
) -> None:
    backup, path = damageable
    other = history.repository / history.source.backups["first"].manifest.objects[0].key
    damage(path, other)
    entry = backup.manifest.objects[0]
    told = f"{entry.key}: expected {entry.size} bytes with sha256 {entry.sha256}, found"
    with pytest.raises(RestoreError) as refused:
        unpack(backup, into, history.source.tools)
    assert told in str(refused.value)
    assert not into.exists()


def test_a_missing_object_is_refused_by_name(
    history: History, damageable: tuple[BackupSet, Path], into: Path
) -> None:
    backup, path = damageable
    path.unlink()
    with pytest.raises(ObjectMissing, match=backup.manifest.objects[0].key):
        unpack(backup, into, history.source.tools)
    assert not into.exists()


def test_existing_data_is_never_written_into(history: History, into: Path) -> None:
    into.mkdir()
    (into / "PG_VERSION").write_text("18")
    with pytest.raises(RestoreError, match=f"{into} is not empty"):
        unpack(history.source.backups["second"], into, history.source.tools)
    assert [path.name for path in into.iterdir()] == ["PG_VERSION"]


def test_what_an_interrupted_restore_left_is_done_again(history: History, into: Path) -> None:
    left = into.with_name(into.name + UNFINISHED)
    (left / "base").mkdir(parents=True)
    (left / "base" / "stray").write_text("half a file")
    into.mkdir()  # an empty place is as good as none
    unpack(history.source.backups["second"], into, history.source.tools)
    assert (into / "PG_VERSION").exists()
    assert not (into / "base" / "stray").exists()


def test_a_program_that_a_killed_restore_left_is_ended_first(history: History, into: Path) -> None:
    """It would write into what the next restore has just removed."""
    left = into.with_name(into.name + UNFINISHED)
    left.mkdir(parents=True)
    program = into.with_name("pg_combinebackup")  # the kernel keeps fifteen letters of a name
    shutil.copy(shutil.which("sleep") or "", program)
    history.source.tools.own(left)
    with psutil.Popen([program, "30"], cwd=left) as orphan:
        unpack(history.source.backups["second"], into, history.source.tools)
        assert orphan.wait(timeout=10) == -signal.SIGTERM
    program.unlink()
    assert (into / "PG_VERSION").exists()


def test_a_restore_that_still_runs_is_not_disturbed(history: History, into: Path) -> None:
    left = into.with_name(into.name + UNFINISHED)
    (left / "base").mkdir(parents=True)
    with (
        tablespaces.locked(left),
        pytest.raises(RestoreError, match=f"another restore into {into} is running"),
    ):
        unpack(history.source.backups["second"], into, history.source.tools)
    assert (left / "base").exists()
    shutil.rmtree(left)


def test_a_backup_whose_program_is_killed_is_none(breakable: NativeStack, tmp_path: Path) -> None:
    repository = Repository(Interrupted(tmp_path / "repository", kill_pg_basebackup))
    with pytest.raises(BackupError, match="no backup was taken: pg_basebackup ended with exit"):
        base_backup.take(breakable.config, repository)
    assert list(repository) == []
    assert [path for path in (tmp_path / "repository").rglob("*") if path.is_file()] == []


def test_a_backup_whose_server_is_killed_is_none(breakable: NativeStack, tmp_path: Path) -> None:
    killed = Interrupted(tmp_path / "repository", lambda: breakable.kill(Component.POSTGRES))
    try:
        with pytest.raises(BackupError, match="no backup was taken"):
            base_backup.take(breakable.config, Repository(killed))
    finally:
        breakable.start(Component.POSTGRES)
    assert list(Repository(killed)) == []
    assert [path for path in (tmp_path / "repository").rglob("*") if path.is_file()] == []
