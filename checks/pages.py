"""The pages of tables and indexes in a backup: headers that make sense, checksums that agree."""

import re
import struct
from collections.abc import Iterable
from itertools import count
from typing import NamedTuple

from checks.page_checksums import checksum_in, folded_sums
from pipeline.postgres.wal.lsn import PAGE_SIZE

# PageHeaderData: position in two halves, checksum, flags, lower, upper, special, size and version
_HEADER = struct.Struct("=IIHHHHHH")
_HEADER_SIZE = 24
_FLAGS = 0x0007  # PD_VALID_FLAG_BITS
_SIZE_AND_VERSION = PAGE_SIZE | 4  # PG_PAGE_LAYOUT_VERSION, since PostgreSQL 8.3
_ALIGNED = 8
_NOTHING = bytes(PAGE_SIZE)
_RELATION = re.compile(
    r"(?:base/\d+|global|pg_tblspc/\d+/PG_[^/]+/\d+)/\d+(?:_(?:fsm|vm|init))?(?:\.(\d+))?"
)
_INCREMENT = "INCREMENTAL."
SEGMENT_BLOCKS = 131_072  # RELSEG_SIZE: a relation goes on in a new file after 1 GB
SHOWN = 20  # pages of one file that are told; more would say the same


class PageTrouble(NamedTuple):
    """One page that is not sound: its block number in the relation."""

    block: int
    what: str


class PageReport(NamedTuple):
    """What a reading of one file found; `newest` is the highest position of its pages."""

    pages: int
    wrong_sums: list[PageTrouble]
    bad_headers: list[PageTrouble]
    newest: int
    newest_block: int


def first_block(name: str) -> int | None:
    """Number of the first block in a relation's file; None for a file of another kind."""
    found = _RELATION.fullmatch(name)
    return None if found is None else int(found[1] or 0) * SEGMENT_BLOCKS


def changed_file(name: str) -> str | None:
    """Name of the relation's file of which an increment holds the changed blocks, else None."""
    folder, _, last = name.rpartition("/")
    changed = f"{folder}/{last.removeprefix(_INCREMENT)}"
    return changed if last.startswith(_INCREMENT) and first_block(changed) is not None else None


class PageWalk:
    """Takes a file block by block, each of whole pages but for the last.

    A page newer than `torn_from`, the start of the backup, may have been torn while it was copied:
    replay writes it anew, and pg_basebackup does not judge it either. `numbers` are those of the
    pages from `first` on, where they are not in a row: one for each page.
    """

    def __init__(
        self,
        first: int,
        *,
        checksums: bool,
        torn_from: int,
        numbers: Iterable[int] | None = None,
    ) -> None:
        self._block = first
        self._blocks = count(first) if numbers is None else (first + n for n in numbers)
        self._checksums = checksums
        self._torn_from = torn_from
        self._pages = self._newest = self._newest_block = 0
        self._wrong_sums: list[PageTrouble] = []
        self._bad_headers: list[PageTrouble] = []

    def feed(self, block: bytes) -> None:
        """Look at the next pages."""
        rest = len(block) % PAGE_SIZE
        whole = block[:-rest] if rest else block
        sums = folded_sums(whole) if self._checksums else None
        for offset in range(0, len(whole), PAGE_SIZE):
            self._block = next(self._blocks)
            due = None if sums is None else checksum_in(self._block, next(sums))
            self._look(whole, offset, due)
            self._pages += 1
        if rest:
            told = f"the file ends with {rest} bytes that are no page"
            self._bad_headers.append(PageTrouble(next(self._blocks, self._block), told))

    def report(self) -> PageReport:
        """All that was found."""
        return PageReport(
            self._pages,
            self._wrong_sums[:SHOWN],
            self._bad_headers[:SHOWN],
            self._newest,
            self._newest_block,
        )

    def _look(self, block: bytes, offset: int, due: int | None) -> None:
        high, low, stated, *rest = _HEADER.unpack_from(block, offset)
        position = high << 32 | low
        upper = rest[2]
        if upper == 0:  # never used: PostgreSQL asks that all of it is zero
            if block[offset : offset + PAGE_SIZE] != _NOTHING:
                told = "its header is empty, and the page is not"
                self._bad_headers.append(PageTrouble(self._block, told))
            return
        if position > self._newest:
            self._newest, self._newest_block = position, self._block
        if position >= self._torn_from:
            return
        if problem := _header_problem(*rest):
            self._bad_headers.append(PageTrouble(self._block, problem))
        if due is not None and due != stated:
            told = f"its checksum is {due:04X}, the page says {stated:04X}"
            self._wrong_sums.append(PageTrouble(self._block, told))


def _header_problem(flags: int, lower: int, upper: int, special: int, size: int) -> str | None:
    """Judge as PageIsVerified does (bufpage.c), and size and version too."""
    if size != _SIZE_AND_VERSION:
        return f"it says size and version {size:04X}, expected {_SIZE_AND_VERSION:04X}"
    if flags & ~_FLAGS:
        return f"its flags are {flags:04X}"
    if not _HEADER_SIZE <= lower <= upper <= special <= PAGE_SIZE or special % _ALIGNED:
        return f"its parts end at {lower}, {upper} and {special}"
    return None
