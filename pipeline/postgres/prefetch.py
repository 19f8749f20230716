"""WAL brought beside the server ahead of its replay, so that fetching and applying overlap.

The next segments are copied into a folder of the server's own pg_wal, from where its
restore_command moves them; what is not there it fetches. So a copy that fails, or comes too late,
costs time and nothing else: what is wrong is told by the command that the server waits for.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Condition, Thread

from pipeline.postgres.lsn import Lsn, parse_segment
from pipeline.postgres.segments import MergedWal
from pipeline.postgres.tools import Tools

PREFETCHED = "prefetched"
"""Folder in pg_wal of the segments that lie ready; each is taken once."""
AHEAD = 128 << 20
"""Bytes that may lie ready: more than a server applies in a second."""
_PATIENCE = 1.0  # seconds for a read that is under way; a repository that hangs must not hang us


def take_command() -> str:
    """Shell words that take a segment where it lies ready: a program would start for longer.

    PostgreSQL runs them in its data folder.
    """
    ready = f"pg_wal/{PREFETCHED}/%f"
    return f"test -f {ready} && mv {ready} %p"


@contextmanager
def prefetched(
    wal: MergedWal, start: Lsn, pg_wal: Path, tools: Tools
) -> Iterator[Callable[[Lsn], None]]:
    """Copy segments from `start` on; give a function that is told how far replay is.

    At the end of the context nothing is left of them.
    """
    spool = pg_wal / PREFETCHED
    shutil.rmtree(spool, ignore_errors=True)  # of a replay that was killed
    spool.mkdir(mode=0o700)
    tools.own(spool)
    ahead = _Ahead(wal, start, spool, tools)
    thread = Thread(target=ahead.run, name="prefetch of WAL", daemon=True)
    thread.start()
    try:
        yield ahead.replayed_to
    finally:
        ahead.end()
        thread.join(_PATIENCE)
        shutil.rmtree(spool, ignore_errors=True)


class _Ahead:
    """Stays so far ahead of replay, and not more."""

    def __init__(self, wal: MergedWal, start: Lsn, spool: Path, tools: Tools) -> None:
        self._wal, self._size, self._spool, self._tools = wal, wal.segment_size, spool, tools
        self._reached, self._ended = start, False
        self._moved = Condition()
        self._ready: list[tuple[Lsn, str]] = []

    def replayed_to(self, lsn: Lsn) -> None:
        with self._moved:
            self._reached = max(self._reached, lsn)
            self._moved.notify()

    def end(self) -> None:
        with self._moved:
            self._ended = True
            self._moved.notify()

    def run(self) -> None:
        for start, name in self._segments():
            if start + self._size <= self._reached:
                continue  # replay has overtaken it
            with self._moved:
                self._moved.wait_for(lambda start=start: self._wanted(start))  # type: ignore[misc]  # a default gives a lambda no type
            if self._ended:
                return
            self._remove_overtaken()
            with suppress(OSError):  # the server asks for it, and the command tells what is wrong
                self._copy(name)
            self._ready.append((start, name))

    def _remove_overtaken(self) -> None:
        """Let go of what came too late to be taken: it would fill the server's disk."""
        late = [each for each in self._ready if each[0] + self._size <= self._reached]
        for start, name in late:
            (self._spool / name).unlink(missing_ok=True)
            self._ready.remove((start, name))

    def _segments(self) -> list[tuple[Lsn, str]]:
        """In the order of replay: of one position the later timeline is asked for first.

        Not those that may have ended early: a receiver may still write to them.
        """
        whole = self._wal.segments - self._wal.unfinished
        found = [(parse_segment(name, self._size), name) for name in whole]
        found.sort(key=lambda each: (each[0].start, -each[0].timeline))
        return [(place.start, name) for place, name in found]

    def _wanted(self, start: Lsn) -> bool:
        return self._ended or start <= self._reached + max(AHEAD, self._size)

    def _copy(self, name: str) -> None:
        unfinished = self._spool / f"{name}.unfinished"
        shutil.copyfile(self._wal.folder / name, unfinished)
        self._tools.own(unfinished)
        unfinished.rename(self._spool / name)
