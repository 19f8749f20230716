"""Positions in the WAL and the names of the segments that hold them; nothing but arithmetic."""

import re
from collections.abc import Iterator
from typing import NamedTuple, Self

SEGMENT_SIZE = 16 << 20  # initdb's default; --wal-segsize changes it for a whole cluster
PAGE_SIZE = 8192  # the default of PostgreSQL's build; no packager changes it
LONG_PAGE_HEADER = 40  # XLogLongPageHeaderData: the first page of a segment
PAGE_HEADER = 24  # XLogPageHeaderData: every other page
ALIGNMENT = 8

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_SEGMENT = re.compile(r"[0-9A-F]{24}")


class Lsn(int):
    """A byte position in the WAL, written as PostgreSQL writes it: `0/3000028`."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `0/3000028`, with or without leading zeros; ValueError for anything else."""
        if (match := _LSN.fullmatch(text)) is None:
            raise ValueError(f"{text!r} is not an LSN: expected two hex numbers like 0/3000028")
        return cls(int(match[1], 16) << 32 | int(match[2], 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn({str(self)!r})"

    def __add__(self, count: int) -> "Lsn":
        return Lsn(int(self) + count)


class Segment(NamedTuple):
    """What the name of a WAL segment says."""

    timeline: int
    start: Lsn


def segment_start(lsn: Lsn, size: int = SEGMENT_SIZE) -> Lsn:
    """First position of the segment that holds `lsn`."""
    return Lsn(lsn - lsn % size)


def segment_name(timeline: int, lsn: Lsn, size: int = SEGMENT_SIZE) -> str:
    """File name of the segment that holds `lsn`."""
    high, low = divmod(lsn // size, (1 << 32) // size)
    return f"{timeline:08X}{high:08X}{low:08X}"


def is_segment(name: str) -> bool:
    """Tell a segment from history files, backup labels and unfinished segments."""
    return _SEGMENT.fullmatch(name) is not None


def parse_segment(name: str, size: int = SEGMENT_SIZE) -> Segment:
    """Timeline and first position of a segment; ValueError when the name cannot be one."""
    low_limit = (1 << 32) // size
    if not is_segment(name) or int(name[16:], 16) >= low_limit:
        raise ValueError(f"{name!r} does not name a WAL segment of {size} bytes")
    number = int(name[8:16], 16) * low_limit + int(name[16:], 16)
    return Segment(int(name[:8], 16), Lsn(number * size))


def segments_between(
    timeline: int, start: Lsn, end: Lsn, size: int = SEGMENT_SIZE
) -> Iterator[str]:
    """Names of the segments that hold the bytes from `start` up to, not including, `end`."""
    for position in range(segment_start(start, size), end, size):
        yield segment_name(timeline, Lsn(position), size)


def record_end(start: Lsn, length: int, size: int = SEGMENT_SIZE) -> Lsn:
    """Where a record of `length` bytes ends: its bytes skip the header of each page they enter."""
    position, left = int(start), length
    while left > (room := PAGE_SIZE - position % PAGE_SIZE):
        left -= room
        position += room
        position += PAGE_HEADER if position % size else LONG_PAGE_HEADER
    return Lsn(position + left + -(position + left) % ALIGNMENT)


def as_record_end(position: Lsn, size: int = SEGMENT_SIZE) -> Lsn:
    """Read an insert position as the end of the record before it.

    The server's position skips the header of a page that no record has entered yet; the record
    ended where the page begins.
    """
    into_page = position % PAGE_SIZE
    header = PAGE_HEADER if (position - into_page) % size else LONG_PAGE_HEADER
    return Lsn(position - into_page) if into_page == header else position
