"""A data folder that is a mount point, or a link to a folder elsewhere, is restored into."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.errors import PlaceTaken
from pipeline.postgres.base import place
from pipeline.postgres.base.restore import MARK, unpack
from pipeline.runbooks.point_in_time import new_recovery
from tests.recovery.history import History, Source
from tests.recovery.unpacked import state_of
from tests.recovery.without_connect import recovery


@contextmanager
def mounted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have something mounted on a folder, or where we may not, have it behave as if it were."""
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if mount and unmount and _succeeds(mount, "--bind", folder, folder):
        try:
            yield
        finally:
            assert _succeeds(unmount, "--lazy", folder)
    else:
        point = folder.resolve()
        monkeypatch.setattr(place, "is_mount_point", lambda one: one.resolve() == point)
        yield


def _succeeds(*words: str | Path) -> bool:
    return subprocess.run(words, check=False).returncode == 0


def test_a_mount_point_is_restored_into_and_what_was_in_it_is_kept_within(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.back_up("one")
    source.expect(source.write("kept").after)
    inode = source.data.stat().st_ino
    with mounted(source.data, monkeypatch):
        running = recovery(source, new_recovery(source.config), "latest")
        running.run()
        aside = source.data / f"damaged-{running.journal.recovery}"
        assert running.journal.done()["salvage"]["set_aside"] == str(aside)
        assert (aside / "global/pg_control").exists()
        assert source.run("select note from notes") == "kept"
        assert source.data.stat().st_ino == inode
        assert [path.name for path in source.data.parent.iterdir()] == [source.data.name]
        running.server.stop()


def test_a_data_folder_that_is_a_link_stays_one(source: Source) -> None:
    source.back_up("one")
    source.expect(source.write("kept").after)
    link = source.data.with_name("link")
    link.symlink_to(source.data)
    postgres = source.config.postgres.model_copy(update={"data": link})
    config = source.config.model_copy(update={"postgres": postgres})
    running = recovery(source, new_recovery(source.config), "latest")
    running.config = config
    running.__post_init__()
    try:
        running.run()
        assert link.is_symlink()
        assert source.run("select note from notes") == "kept"
        assert running.server.pid() is not None
    finally:
        link.unlink()


def test_an_interrupted_move_into_a_mount_point_is_taken_back(
    history: History, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    into.mkdir()
    history.source.tools.own(into)
    backup = history.source.backups["first"]
    with mounted(into, monkeypatch):
        moved: list[Path] = []
        rename = Path.rename

        def cut(self: Path, target: Path) -> Path:
            moved.append(target)
            if len(moved) == 5:
                raise KeyboardInterrupt
            return rename(self, target)

        with monkeypatch.context() as power:
            power.setattr(Path, "rename", cut)
            power.setattr("pipeline.postgres.base.restore._Unpacking._clear", lambda _: None)
            with pytest.raises(KeyboardInterrupt):
                unpack(backup, into, history.source.tools, mark="ours")
        assert (into / moved[0].name).exists()
        assert place.occupants(into) == [], "what was begun does not count as somebody's"
        unpack(backup, into, history.source.tools, mark="ours")
        assert (into / MARK).read_text() == "ours"
        assert not (into / place.UNFINISHED).exists()
        assert place.occupants(into)
        with pytest.raises(PlaceTaken):
            unpack(backup, into, history.source.tools)
        (into / MARK).unlink()
        assert state_of(into, history.source, "select 1") == (1,)


def test_what_stands_beside_in_a_mount_point_is_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "damaged-earlier").mkdir()
    (tmp_path / "somebody's").touch()
    assert len(place.occupants(tmp_path)) == 3
    with mounted(tmp_path, monkeypatch):
        assert place.occupants(tmp_path) == [tmp_path / "somebody's"]
