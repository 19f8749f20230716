"""One file of WAL into the archive, and along with it a few segments that wait behind it.

A server that could not archive for a while calls its archive_command once for each segment that
waits, and each call waits for the disk. Here one call copies and syncs the next few side by side
with its own. They get their names after it and in order, so the archive has no hole that it would
not have without them; of a call that is killed fewer are there, and none in part.

Each is noted in a folder of the server's own pg_wal: which file was read, and what it became. Its
own call compares no more than that; where anything is not as it was noted, it copies or compares
the content, as ever.

Imported for each segment, like pipeline.durable, so it imports as little.
"""

from __future__ import annotations

import _thread  # threading takes longer to import than a segment to copy
import os

from pipeline.durable import Unfinished, same, sync_folders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

BATCH = 4
"""Segments that one call archives where so many wait: more of them gained nothing."""
NOTES = "pushed"
"""Folder in a server's pg_wal, of a note for each segment that was archived ahead of its call."""


def archived(root: str, segment: str, target: str) -> bool:
    """Make a file durable as `target`; False when other content stands there.

    Raises OSError where that fails. What goes wrong with those that wait is not told: the server
    asks for each in its turn, and that call tells.
    """
    if _noted(segment, target):
        return True
    with (
        open(segment, "rb", 0) as stream,
        Unfinished(root, target) as file,
        _Along(root, segment, os.path.dirname(target)) as along,
    ):
        file.copy(stream.fileno())
        file.sync()
        if new := file.name():
            along.name()
        sync_folders(os.path.dirname(target), root)
        along.note()
    return new or same(segment, target)


class _Along:
    """What waits behind a segment: copied from the beginning of the block on."""

    def __init__(self, root: str, segment: str, archive: str) -> None:
        self._copies = [_Copy(root, one, archive) for one in _waiting(segment)]
        self._named: list[_Copy] = []

    def name(self) -> None:
        """Give names to those that are whole, in order, up to the first that has none to get."""
        for copy in self._copies:
            if not copy.named():
                return
            self._named.append(copy)

    def note(self) -> None:
        """Spare the calls for them; to be called once their names are durable."""
        for copy in self._named:
            copy.note()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for copy in self._copies:
            copy.close()


class _Copy:
    """One segment, read by a thread of its own into a file that has no name yet."""

    def __init__(self, root: str, segment: str, archive: str) -> None:
        self._root, self._segment = root, segment
        self._target = f"{archive}/{os.path.basename(segment)}"
        self._file: Unfinished | None = None
        self._read, self._whole = b"", False
        self._running = _thread.allocate_lock()
        self._running.acquire()
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError:  # its owner may have no more of them
            self._running.release()

    def _run(self) -> None:
        try:
            with open(self._segment, "rb", 0) as stream:
                self._read = _identity(stream.fileno())
                self._file = Unfinished(self._root, self._target)
                self._file.copy(stream.fileno())
                self._file.sync()
                self._whole = True
        except OSError:
            pass
        finally:
            self._running.release()

    def named(self) -> bool:
        with self._running:
            try:
                return self._whole and self._file is not None and self._file.name()
            except OSError:
                return False

    def note(self) -> None:
        """Write down what was read, by its identity before that, and what it became."""
        note = _note(self._segment)
        try:
            os.makedirs(os.path.dirname(note), mode=0o700, exist_ok=True)
            with open(note, "wb") as stream:
                stream.write(self._read + _identity(self._target))
        except OSError:
            pass

    def close(self) -> None:
        with self._running:
            try:
                if self._file is not None:
                    self._file.close()
            except OSError:
                pass


def _waiting(segment: str) -> list[str]:
    """Return the next finished segments of the same timeline, by the server's own marks.

    No history file, and nothing of another timeline: readers rely on the order of those.
    """
    folder, name = os.path.split(segment)
    try:
        marks = os.listdir(f"{folder}/archive_status")
    except OSError:  # not a server's pg_wal, or nothing that the archive should wait for
        return []
    ready = [mark.removesuffix(".ready") for mark in marks if mark.endswith(".ready")]
    behind = sorted(one for one in ready if one > name and one[:8] == name[:8] and _whole(one))
    return [f"{folder}/{one}" for one in behind[: BATCH - 1]] if _whole(name) else []


def _whole(name: str) -> bool:
    return len(name) == 24 and not name.strip("0123456789ABCDEF")


def _noted(segment: str, target: str) -> bool:
    """Whether it was archived ahead, and both it and what it became are as they were then."""
    note = _note(segment)
    try:
        with open(note, "rb") as stream:
            told = stream.read()
        os.unlink(note)  # taken once
        return told == _identity(segment) + _identity(target)
    except OSError:
        return False


def _note(segment: str) -> str:
    folder, name = os.path.split(segment)
    return f"{folder}/{NOTES}/{name}"


def _identity(file: str | int) -> bytes:
    """Tell a file apart from others, and from itself before it was written to.

    The time of its last change is set by the kernel alone; no program can set it back.
    """
    found = os.stat(file)
    times = f"{found.st_mtime_ns} {found.st_ctime_ns}"
    return f"{found.st_dev} {found.st_ino} {found.st_size} {times}\n".encode()
