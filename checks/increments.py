"""Increments: the files of an incremental backup that hold only a relation's changed blocks.

A header of four-byte numbers as the server's machine writes them: a magic number, how many blocks
follow, below which length the file was never cut meanwhile, and the numbers of the blocks. Where
blocks follow, it is filled up to a whole page (postgres/src/bin/pg_combinebackup/reconstruct.c).
"""

import struct
from itertools import pairwise
from typing import IO

from checks.pages import SEGMENT_BLOCKS, PageReport, PageTrouble, PageWalk
from pipeline.postgres.lsn import PAGE_SIZE

_MAGIC = 0xD3AE1F0D
_HEADER = struct.Struct("=III")


def header_of(increment: IO[bytes]) -> tuple[int, tuple[int, ...]]:
    """Length below which the file was not cut, and the numbers of the blocks that follow.

    Raises ValueError where no such header stands.
    """
    magic, held, kept = _HEADER.unpack(_exactly(increment, _HEADER.size))
    if problem := _no_header(magic, held, kept):
        raise ValueError(problem)
    return kept, struct.unpack(f"={held}I", _exactly(increment, 4 * held))


def _exactly(increment: IO[bytes], size: int) -> bytes:
    if len(read := increment.read(size)) < size:
        raise ValueError("it ends in its header")
    return read


def _no_header(magic: int, held: int, kept: int) -> str | None:
    if magic != _MAGIC:
        return f"it begins with {magic:08x}, expected {_MAGIC:08x}"
    if max(held, kept) > SEGMENT_BLOCKS:
        return f"it says {held} blocks and a length of {kept}: no file is that long"
    return None


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
        if self._walk is None:
            self._head += block
            length = self._header_length()
            if length is None or len(self._head) < length:
                return
            self._begin()
            block = bytes(self._head[length:])
            self._head.clear()
        if self._walk is not None:
            self._pages(block)

    def told(self) -> tuple[PageReport, str | None]:
        """All that was found in its pages, and why it is no increment, or None."""
        problem = self._problem
        if self._walk is None:
            problem = problem or f"it ends in its header, after {len(self._head)} bytes"
            return PageReport(0, [], [PageTrouble(self._first, problem)], 0, 0), problem
        if self._due:
            problem = problem or f"{self._due} bytes of the pages that its header names are missing"
        return self._walk.report(), problem

    def _header_length(self) -> int | None:
        """Bytes before the first page; None while that is not known, or never will be."""
        if len(self._head) < _HEADER.size:
            return None
        magic, held, kept = _HEADER.unpack_from(self._head)
        self._problem = _no_header(magic, held, kept)
        if self._problem is not None:
            return None
        length = _HEADER.size + 4 * int(held)
        return length + -length % PAGE_SIZE if held else length

    def _begin(self) -> None:
        _, held, _ = _HEADER.unpack_from(self._head)
        numbers = struct.unpack_from(f"={held}I", self._head, _HEADER.size)
        if any(one >= other for one, other in pairwise(numbers)):
            self._problem = "the numbers of its blocks do not rise"
        elif numbers and numbers[-1] >= SEGMENT_BLOCKS:
            self._problem = f"it holds block {numbers[-1]}, behind the end of any file"
        else:
            self._due = held * PAGE_SIZE
            self._walk = PageWalk(
                self._first,
                checksums=self._checksums,
                torn_from=self._torn_from,
                numbers=numbers,
            )

    def _pages(self, block: bytes) -> None:
        assert self._walk is not None
        if len(block) > self._due:
            self._problem = f"{len(block) - self._due} bytes follow the pages that its header names"
            block = block[: self._due]
        self._due -= len(block)
        self._walk.feed(block)
