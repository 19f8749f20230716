"""The page headers of a WAL segment: whether its content is what its name says."""

import mmap
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pipeline.postgres.wal.lsn import LONG_PAGE_HEADER, PAGE_HEADER, PAGE_SIZE, Lsn, parse_segment
from pipeline.postgres.wal.timelines import Span, timeline_at

# XLogPageHeaderData: magic, flags, timeline, position; a long one goes on with the rest of a
# record, padding, system identifier, segment size and page size (access/xlog_internal.h)
_SHORT = struct.Struct("=HHIQ")
_LONG = struct.Struct("=HHIQI4xQII")
_NOTHING = bytes(PAGE_HEADER)
# XLOG_PAGE_MAGIC of each major version
_MAGIC = {13: 0xD106, 14: 0xD10D, 15: 0xD110, 16: 0xD113, 17: 0xD116, 18: 0xD118}


class Origin(NamedTuple):
    """What every page of an archive must agree with."""

    system_identifier: str
    major: int
    segment_size: int
    spans: Iterable[Span]


class FirstPage(NamedTuple):
    """What the first page header of a segment says."""

    timeline: int
    start: Lsn
    system_identifier: str
    segment_size: int


def first_page(header: bytes) -> FirstPage | None:
    """Read the header of a segment's first page; None when it is too short."""
    if len(header) < LONG_PAGE_HEADER:
        return None
    _, _, timeline, start, _, system, segment_size, _ = _LONG.unpack_from(header)
    return FirstPage(timeline, Lsn(start), str(system), segment_size)


def page_trouble(path: Path, origin: Origin) -> str | None:
    """The first thing in a segment that is not as its name and its origin say."""
    if origin.major not in _MAGIC:
        raise ValueError(f"the page magic of PostgreSQL {origin.major} is not known here")
    start = parse_segment(path.name, origin.segment_size).start
    with path.open("rb") as file:
        if path.stat().st_size < LONG_PAGE_HEADER:
            return "it is too short for a page header"
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            first = content[:LONG_PAGE_HEADER]
            return _first_page_trouble(first, origin) or _walk(content, start, origin)


def _first_page_trouble(header: bytes, origin: Origin) -> str | None:
    *_, system, segment_size, page_size = _LONG.unpack(header)
    if header == bytes(LONG_PAGE_HEADER):
        return "its first page is empty"
    if str(system) != origin.system_identifier:
        return f"it is of server {system}, expected {origin.system_identifier}"
    if (segment_size, page_size) != (origin.segment_size, PAGE_SIZE):
        return f"it says segments of {segment_size} and pages of {page_size} bytes"
    return None


def _walk(content: mmap.mmap, start: Lsn, origin: Origin) -> str | None:
    ended_at = None
    for offset in range(0, len(content) - PAGE_HEADER + 1, PAGE_SIZE):
        header = content[offset : offset + PAGE_HEADER]
        if header == _NOTHING:
            # behind a switch of segments PostgreSQL leaves nothing, not even headers
            ended_at = offset if ended_at is None else ended_at
        elif ended_at is not None:
            return f"nothing at offset {ended_at}, and pages again at {offset}"
        elif trouble := _page_trouble(header, start + offset, origin):
            return f"offset {offset}: {trouble}"
    return None


def _page_trouble(header: bytes, position: Lsn, origin: Origin) -> str | None:
    magic, _flags, timeline, found = _SHORT.unpack_from(header)
    if magic != _MAGIC[origin.major]:
        return f"magic {magic:04X}, expected {_MAGIC[origin.major]:04X}"
    if found != position:
        return f"the page is that of {Lsn(found)}, expected {position}"
    if timeline != (expected := timeline_at(origin.spans, position)):
        return f"the page is of timeline {timeline}, expected {expected}"
    return None
