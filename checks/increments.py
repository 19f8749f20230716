"""Increments: the files of an incremental backup that hold only a relation's changed blocks.

A header of four-byte numbers as the server's machine writes them: a magic number, how many blocks
follow, the least length in blocks of the file that comes of it, and the numbers of those blocks.
The length is what the file had when it was read, or what it was once cut to, if that is more
(GetFileBackupMethod): a block below it that is not here is taken from the set below, one that was
never there is zero. Where blocks follow, the header is filled up to a whole page
(postgres/src/bin/pg_combinebackup/reconstruct.c).
"""

import struct
from itertools import pairwise
from typing import IO, NamedTuple, Self

from checks.pages import SEGMENT_BLOCKS, PageReport, PageTrouble, PageWalk, changed_file
from pipeline.errors import BackupError
from pipeline.postgres.base.file_list import FileList
from pipeline.postgres.base.server_manifest import NAME
from pipeline.postgres.wal.lsn import PAGE_SIZE
from pipeline.repository.sets import BackupSet

_MAGIC = 0xD3AE1F0D
_HEADER = struct.Struct("=III")
_SHOWN = 5  # files that are named; more would say the same


class Header(NamedTuple):
    """What stands before the pages: the least length of the whole file, and their numbers."""

    least: int
    numbers: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes before the first page."""
        return _size(len(self.numbers))

    @classmethod
    def parse(cls, read: bytes | bytearray) -> Self | None:
        """Take it from what was read of a file so far; None while that is not all of it.

        Raises ValueError where no such header stands.
        """
        if len(read) < _HEADER.size:
            return None
        magic, held, least = _HEADER.unpack_from(read)
        if magic != _MAGIC:
            raise ValueError(f"it begins with {magic:08x}, expected {_MAGIC:08x}")
        if max(held, least) > SEGMENT_BLOCKS:
            raise ValueError(f"it says {held} blocks and a length of {least}: no file is that long")
        if len(read) < _size(held):
            return None
        numbers = struct.unpack_from(f"={held}I", read, _HEADER.size)
        if any(one >= other for one, other in pairwise(numbers)):
            raise ValueError("the numbers of its blocks do not rise")
        if numbers and numbers[-1] >= SEGMENT_BLOCKS:
            raise ValueError(f"it holds block {numbers[-1]}, behind the end of any file")
        return cls(least, numbers)


def _size(held: int) -> int:
    size = _HEADER.size + 4 * held
    return size + -size % PAGE_SIZE if held else size


def header_of(increment: IO[bytes]) -> Header:
    """Read the header of an increment. Raises ValueError where no such header stands."""
    read = bytearray()
    while block := increment.read(PAGE_SIZE):
        read += block
        if (found := Header.parse(read)) is not None:
            return found
    raise ValueError(_ends_in_header(len(read)))


def _ends_in_header(size: int) -> str:
    return f"it ends in its header, after {size} bytes"


def refuse_unread(backup: BackupSet, listed: bytes, found: set[str]) -> None:
    """Raise BackupError unless these are the increments that PostgreSQL lists in the set.

    A reader of tar takes a damaged header for the end of its archive, and says nothing.
    """
    files = FileList.parse(backup.label, listed, backup.manifest.facts["system_identifier"]).files
    expected = {name for name in files if changed_file(name) is not None}
    if differ := sorted(expected ^ found):
        raise BackupError(
            f"{backup.label}: {NAME} lists {len(expected)} increments, its archives gave "
            f"{len(found)}; {len(differ)} are in one only: {', '.join(differ[:_SHOWN])}"
        )


class IncrementWalk:
    """Takes an increment block by block, and has a PageWalk look at the pages in it."""

    def __init__(self, first: int, *, checksums: bool, torn_from: int) -> None:
        self._first, self._checksums, self._torn_from = first, checksums, torn_from
        self._head = bytearray()
        self._walk: PageWalk | None = None
        self._due = 0  # bytes of pages that the header promised, and that did not come yet
        self._problem: str | None = None

    def feed(self, block: bytes) -> None:
        """Read the header, then look at the pages; what follows a bad header is not read."""
        if self._problem is not None:
            return
        if self._walk is not None:
            self._pages(self._walk, block)
            return
        self._head += block
        try:
            header = Header.parse(self._head)
        except ValueError as error:
            self._problem = str(error)
            return
        if header is not None:
            self._begin(header)

    def told(self) -> tuple[PageReport, str | None]:
        """All that was found in its pages, and why it is no increment, or None."""
        problem = self._problem
        if self._walk is None:
            problem = problem or _ends_in_header(len(self._head))
            return PageReport(0, [], [PageTrouble(self._first, problem)], 0, 0), problem
        if self._due:
            problem = problem or f"{self._due} bytes of the pages that its header names are missing"
        return self._walk.report(), problem

    def _begin(self, header: Header) -> None:
        self._due = len(header.numbers) * PAGE_SIZE
        self._walk = PageWalk(
            self._first,
            checksums=self._checksums,
            torn_from=self._torn_from,
            numbers=header.numbers,
        )
        self._pages(self._walk, bytes(self._head[header.size :]))
        self._head.clear()

    def _pages(self, walk: PageWalk, block: bytes) -> None:
        if len(block) > self._due:
            self._problem = f"{len(block) - self._due} bytes follow the pages that its header names"
            block = block[: self._due]
        self._due -= len(block)
        walk.feed(block)
