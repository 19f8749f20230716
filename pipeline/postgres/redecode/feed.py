"""WAL handed to a side server piece by piece, so that its replay stops where we want it to.

A segment that is cut at the end of a record makes replay stop right there, and go on when a longer
version of the same segment is handed over: no target and no pause, both of which a slot that is
being made would wait for in vain.
"""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

from pipeline.postgres.server.tools import Tools
from pipeline.postgres.wal.lsn import Lsn, segment_name, segment_start
from pipeline.postgres.wal.segments import MergedWal
from pipeline.postgres.wal.timelines import timeline_at

_AHEAD = 4  # segments that wait to be taken: the archive is not copied as a whole


class Feed:
    """A folder from which the server takes each segment away: by renaming, never a copy of half."""

    def __init__(self, folder: Path, wal: MergedWal, tools: Tools, start: Lsn) -> None:
        self._folder, self._wal, self._tools = folder, wal, tools
        self._position = segment_start(start, wal.segment_size)
        folder.mkdir()
        tools.own(folder)

    @property
    def restore_command(self) -> str:
        """A segment is taken once; asked for again it is absent, until a longer one is there."""
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
            self._give(name, end - start)
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

    def _full(self) -> str | None:
        waiting = sum(1 for _ in self._folder.iterdir())
        return f"{waiting} segments wait to be replayed" if waiting >= _AHEAD else None
