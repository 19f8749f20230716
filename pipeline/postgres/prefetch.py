"""WAL read ahead of a replay, so that a slow repository is read while the server applies.

Nothing is copied and no name changes: the next segments are read into this machine's memory, and
`pipeline-wal get` finds them there. What cannot be read is left to it to tell.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Thread

from pipeline.postgres.lsn import Lsn, parse_segment
from pipeline.postgres.segments import MergedWal

AHEAD = 8  # segments: 128 MB as PostgreSQL is built, more than it applies in a second
_BLOCK = 1 << 20


@contextmanager
def prefetched(wal: MergedWal, start: Lsn) -> Iterator[Callable[[Lsn], None]]:
    """Read a recovery's segments from `start` on; give a function that is told how far replay is.

    At the end of the context the reading has ended too.
    """
    ahead = _Ahead(wal, start)
    thread = Thread(target=ahead.run, name="prefetch of WAL")
    thread.start()
    try:
        yield ahead.replayed_to
    finally:
        ahead.end()
        thread.join()


class _Ahead:
    """Stays so many segments ahead of replay, and not more: memory is for the server."""

    def __init__(self, wal: MergedWal, start: Lsn) -> None:
        self._wal, self._size = wal, wal.segment_size
        self._reached, self._ended = start, False
        self._moved = Condition()

    def replayed_to(self, lsn: Lsn) -> None:
        with self._moved:
            self._reached = max(self._reached, lsn)
            self._moved.notify()

    def end(self) -> None:
        with self._moved:
            self._ended = True
            self._moved.notify()

    def run(self) -> None:
        for start, path in self._segments():
            if start + self._size <= self._reached:
                continue  # replay has overtaken it
            with self._moved:
                self._moved.wait_for(lambda start=start: self._wanted(start))  # type: ignore[misc]  # a default gives a lambda no type
            if self._ended:
                return
            self._read(path)

    def _segments(self) -> list[tuple[Lsn, Path]]:
        """In the order of replay: of one position the later timeline is asked for first."""
        found = [(parse_segment(name, self._size), name) for name in self._wal.segments]
        found.sort(key=lambda each: (each[0].start, -each[0].timeline))
        return [(place.start, self._wal.folder / name) for place, name in found]

    def _wanted(self, start: Lsn) -> bool:
        return self._ended or start < self._reached + AHEAD * self._size

    def _read(self, path: Path) -> None:
        try:
            with path.open("rb", buffering=0) as stream:
                while not self._ended and stream.read(_BLOCK):
                    pass
        except OSError:
            return  # the server asks for it, and the command tells what is wrong with it
