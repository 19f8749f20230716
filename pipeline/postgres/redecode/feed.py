"""WAL handed to a side server piece by piece, so that its replay stops where we want it to.

A segment that is cut at the end of a record makes replay stop right there, and go on when more of
it is there: no target and no pause, both of which a slot that is being made would wait for in vain.
It grows where the server has put it: who makes a slot has opened it by then, to read its header,
and would never look at another file of that name.
"""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

from pipeline.postgres.server.server import LocalServer
from pipeline.postgres.wal.lsn import Lsn, segment_name, segment_start
from pipeline.postgres.wal.segments import MergedWal
from pipeline.postgres.wal.timelines import timeline_at

_WORD = 8  # records begin at multiples of it, with their length
_AHEAD = 4  # segments that wait to be taken: the archive is not copied as a whole


class Feed:
    """A folder from which the server takes each segment away: by renaming, never a copy of half."""

    def __init__(self, folder: Path, wal: MergedWal, server: LocalServer, start: Lsn) -> None:
        self._folder, self._wal, self._tools = folder, wal, server.tools
        self._taken, self._given = server.data / "pg_wal", ("", 0)
        self._position = segment_start(start, wal.segment_size)
        folder.mkdir()
        self._tools.own(folder)

    @property
    def restore_command(self) -> str:
        """A segment is taken once; asked for again it is absent, and read where it was put."""
        return f"mv {shlex.quote(str(self._folder))}/%f %p"

    def give_history(self, data: Path) -> None:
        """Lay all history files into the server's own folder, where each process looks."""
        for path in self._wal.folder.glob("????????.history"):
            into = data / "pg_wal" / path.name
            shutil.copyfile(path, into)
            self._tools.own(into)

    def up_to(self, lsn: Lsn, taken: Callable[[Callable[[], str | None]], None]) -> None:
        """Hand over everything before `lsn`, and nothing behind it.

        `taken` waits, with a condition of ours, while the server has enough to replay.
        """
        size = self._wal.segment_size
        for start in range(self._position, lsn, size):
            end = Lsn(min(start + size, lsn))
            # where a timeline was left within a segment, the newer one's holds both parts
            name = segment_name(timeline_at(self._wal.spans, Lsn(end - 1)), Lsn(start), size)
            if self._given[0] == name and not (self._folder / name).exists():
                self._grow(name, self._given[1], end - start)
            else:
                self._give(name, end - start)
            self._given = name, end - start
            taken(self._full)
        self._position = segment_start(lsn, size)

    def _give(self, name: str, length: int) -> None:
        """Copy the first bytes of a segment, zeros behind them, and show it when it is whole."""
        unfinished = self._folder / f"{name}.unfinished"
        with (self._wal.folder / name).open("rb") as source, unfinished.open("wb") as copy:
            while length and (block := source.read(min(length, 1 << 20))):
                copy.write(block)
                length -= len(block)
            copy.truncate(self._wal.segment_size)
        self._tools.own(unfinished)
        unfinished.replace(self._folder / name)

    def _grow(self, name: str, begin: int, end: int) -> None:
        """Write on where the segment was cut: the first word of the next record comes last."""
        if begin >= end:
            return
        with (self._wal.folder / name).open("rb") as source, (self._taken / name).open("r+b") as to:
            source.seek(begin)
            first = source.read(min(_WORD, end - begin))
            to.seek(source.tell())
            while block := source.read(min(end - source.tell(), 1 << 20)):
                to.write(block)
            to.flush()
            to.seek(begin)
            to.write(first)

    def _full(self) -> str | None:
        waiting = sum(1 for _ in self._folder.iterdir())
        return f"{waiting} segments wait to be replayed" if waiting >= _AHEAD else None
