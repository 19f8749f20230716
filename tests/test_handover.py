"""Segments that wait are archived along; no call believes more of that than it can see."""

import _thread
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.durable import PREFIX
from pipeline.postgres import handover

NAMES = [f"0000000100000000000000{n:02X}" for n in range(1, 7)]
FIRST, SECOND = NAMES[:2]
AHEAD = NAMES[1 : handover.BATCH]
CONTENT = b"records of " * 1000


class Server:
    """The pg_wal of a server that could not archive for a while, and its archive."""

    def __init__(self, folder: Path) -> None:
        self.pg_wal, self.root = folder / "pg_wal", folder / "repository"
        (self.pg_wal / "archive_status").mkdir(parents=True)
        for name in NAMES:
            self.waits(name)

    def waits(self, name: str) -> Path:
        (self.pg_wal / "archive_status" / f"{name}.ready").touch()
        segment = self.pg_wal / name
        segment.write_bytes(CONTENT + name.encode())
        return segment

    def push(self, name: str) -> bool:
        target = self.root / "wal" / name
        return handover.archived(str(self.root), str(self.pg_wal / name), str(target))

    def archive(self) -> list[str]:
        """What is archived, each with the right content."""
        found = sorted(path for path in self.root.rglob("*") if path.is_file())
        for path in found:
            assert path.read_bytes() == CONTENT + path.name.encode()
        return [path.name for path in found]

    def notes(self) -> list[str]:
        return sorted(path.name for path in self.pg_wal.glob("pushed/*"))


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def rewritten(path: Path, content: bytes) -> None:
    """Other content in the same file, of the same size and, as far as a program can, as old."""
    found = path.stat()
    with path.open("r+b") as stream:
        stream.write(content)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def test_what_waits_is_archived_along_and_each_call_takes_its_note(server: Server) -> None:
    assert server.push(FIRST)
    assert server.archive() == [FIRST, *AHEAD]
    assert server.notes() == AHEAD
    for done, name in enumerate(AHEAD, 1):
        assert server.push(name)
        assert server.notes() == AHEAD[done:]
    assert server.push(NAMES[handover.BATCH])
    assert server.archive() == NAMES


def test_a_noted_segment_is_neither_copied_nor_compared(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.push(FIRST)

    def refused(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(handover, "Unfinished", refused)
    assert server.push(SECOND)
    with pytest.raises(AssertionError):  # taken once: a server that asks again is told anew
        server.push(SECOND)


def segment_changed(server: Server) -> bool:
    rewritten(server.pg_wal / SECOND, b"others")
    return False


def segment_exchanged(server: Server) -> bool:
    (server.pg_wal / SECOND).unlink()
    server.waits(SECOND).write_bytes(b"others")
    return False


def archived_changed(server: Server) -> bool:
    rewritten(server.root / "wal" / SECOND, b"others")
    return False


def archived_cut(server: Server) -> bool:
    os.truncate(server.root / "wal" / SECOND, 4)
    return False


def archived_removed(server: Server) -> bool:
    (server.root / "wal" / SECOND).unlink()
    return True


def archive_replaced(server: Server) -> bool:
    shutil.rmtree(server.root)
    return True


def note_torn(server: Server) -> bool:
    os.truncate(server.pg_wal / "pushed" / SECOND, 9)
    return True


def note_garbled(server: Server) -> bool:
    (server.pg_wal / "pushed" / SECOND).write_bytes(os.urandom(90))
    return True


def note_of_another(server: Server) -> bool:
    shutil.copyfile(server.pg_wal / "pushed" / AHEAD[1], server.pg_wal / "pushed" / SECOND)
    return True


@pytest.mark.parametrize(
    "happened",
    [
        segment_changed,
        segment_exchanged,
        archived_changed,
        archived_cut,
        archived_removed,
        archive_replaced,
        note_torn,
        note_garbled,
        note_of_another,
    ],
)
def test_a_note_is_believed_only_while_nothing_changed(
    server: Server, happened: Callable[[Server], bool]
) -> None:
    server.push(FIRST)
    sound = happened(server)
    assert server.push(SECOND) is sound
    assert SECOND not in server.notes()
    if sound:
        assert SECOND in server.archive()


def unreadable(server: Server) -> None:
    (server.pg_wal / AHEAD[1]).unlink()
    (server.pg_wal / AHEAD[1]).mkdir()


def archived_otherwise(server: Server) -> None:
    (server.root / "wal").mkdir(parents=True)
    (server.root / "wal" / AHEAD[1]).write_bytes(b"others")


@pytest.mark.parametrize("trouble", [unreadable, archived_otherwise])
def test_the_first_that_cannot_be_archived_ends_the_row(
    server: Server, trouble: Callable[[Server], None]
) -> None:
    trouble(server)
    assert server.push(FIRST)
    assert server.notes() == AHEAD[:1]
    assert not (server.root / "wal" / AHEAD[2]).exists()
    assert not list(server.root.rglob(f"{PREFIX}*"))


def test_nothing_is_archived_behind_a_segment_that_is_refused(server: Server) -> None:
    archived = server.root / "wal" / FIRST
    archived.parent.mkdir(parents=True)
    archived.write_bytes(b"others")
    assert not server.push(FIRST)
    assert [path.name for path in archived.parent.iterdir()] == [FIRST]
    (server.pg_wal / SECOND).unlink()
    with pytest.raises(FileNotFoundError):
        server.push(SECOND)
    assert [path.name for path in archived.parent.iterdir()] == [FIRST]


def test_only_finished_segments_of_the_same_timeline_are_taken_along(server: Server) -> None:
    for name in NAMES[1:]:
        (server.pg_wal / "archive_status" / f"{name}.ready").rename(
            server.pg_wal / "archive_status" / f"{name}.done"
        )
    others = [f"{NAMES[3]}.partial", f"{NAMES[3]}.00000028.backup", "00000002.history"]
    for name in (*others, NAMES[0].replace("1", "2", 1)):
        server.waits(name)
    assert server.push(FIRST)
    assert server.archive() == [FIRST]
    server.waits(SECOND)
    assert server.push("00000002.history")
    assert server.notes() == []


def test_marks_that_cannot_be_read_keep_nothing_from_the_archive(server: Server) -> None:
    shutil.rmtree(server.pg_wal / "archive_status")
    (server.pg_wal / "archive_status").touch()
    assert server.push(FIRST)
    assert server.archive() == [FIRST]


def test_an_owner_who_may_have_no_more_threads_archives_one_by_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", none_left)
    assert server.push(FIRST)
    assert server.archive() == [FIRST]
