"""One folder that shows every archived WAL segment of a lineage, whoever archived it.

Three writers feed the repository: `wal/` (archive_command), `stream/<timeline>/` (pg_receivewal)
and `salvage/<id>/…/pg_wal/` (what a recovery saved from a damaged server).
"""

import struct
import tempfile
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import RestoreError
from pipeline.postgres.lsn import (
    LONG_PAGE_HEADER,
    SEGMENT_SIZE,
    Lsn,
    is_segment,
    parse_segment,
    segment_name,
)
from pipeline.postgres.timelines import Span, lineage
from pipeline.postgres.tools import Tools

PARTIAL = ".partial"
# XLogLongPageHeaderData: magic, flags, timeline, position, rest of a record, padding,
# system identifier, segment size, page size
_HEADER = struct.Struct("=HHIQI4xQII")


class Header(NamedTuple):
    """What the first bytes of a segment say about it."""

    timeline: int
    start: Lsn
    system_identifier: str
    segment_size: int


@dataclass(frozen=True)
class MergedWal:
    """A folder of links, one for each segment of a lineage, under its final name.

    `unfinished` names those that may end before they are full: the last words of a server.
    """

    folder: Path
    spans: tuple[Span, ...]
    segments: frozenset[str]
    unfinished: frozenset[str]
    segment_size: int


def wal_folders(repository: Path) -> list[Path]:
    """Folders of the repository that hold WAL, in the order in which they are believed."""
    salvaged = sorted(repository.glob("salvage/*/**/pg_wal"), reverse=True)  # newest first
    folders = [repository / "wal", *sorted(repository.glob("stream/*")), *salvaged]
    return [folder for folder in folders if folder.is_dir()]


def segment_header(path: Path) -> Header | None:
    """Read the header of a segment; None when the file is too short to have one."""
    try:
        with path.open("rb") as stream:
            start = stream.read(LONG_PAGE_HEADER)
    except OSError as error:
        raise RestoreError(f"{path} cannot be read: {error.strerror}") from error
    if len(start) < LONG_PAGE_HEADER:
        return None
    _, _, timeline, position, _, system, size, _ = _HEADER.unpack(start)
    return Header(timeline, Lsn(position), str(system), size)


def merged_wal(
    repository: Path, into: Path, timeline: int, *, live: Path | None = None
) -> MergedWal:
    """Link every segment of the lineage of `timeline`, and the history files, into a folder.

    Segments of other branches are left out: recovery must not follow a stray one. `live` is the
    pg_wal of the server itself, whose last words are believed before any copy of them.
    """
    folders = [*([live] if live else []), *wal_folders(repository)]
    spans = tuple(lineage(timeline, folders))
    whole, unfinished = _candidates(folders, live)
    size = _segment_size((whole or unfinished).values())
    chosen = {
        name: path for name, path in (unfinished | whole).items() if _belongs(name, spans, size)
    }
    _lend_last_segments(chosen, whole, spans, size)
    for name, path in chosen.items():
        (into / name).symlink_to(path.resolve())
    for path in (path for folder in folders for path in folder.glob("????????.history")):
        if not (into / path.name).is_symlink():
            (into / path.name).symlink_to(path.resolve())
    segments = frozenset(chosen)
    return MergedWal(into, spans, segments, segments - whole.keys(), size)


@contextmanager
def reading_view(
    repository: Path, timeline: int, tools: Tools, *, live: Path | None = None
) -> Iterator[MergedWal]:
    """Merge into a temporary folder that PostgreSQL's programs may read."""
    with tempfile.TemporaryDirectory(prefix="pipeline-wal-") as folder:
        wal = merged_wal(repository, Path(folder), timeline, live=live)
        tools.own(Path(folder))
        yield wal


def _candidates(folders: list[Path], live: Path | None) -> tuple[dict[str, Path], dict[str, Path]]:
    """Archived segments by name, and those that may have ended early.

    Of the archived the first found wins. Of the others the server's own, else the last written: an
    earlier recovery may have saved the same segment when it held less.
    """
    whole: dict[str, Path] = {}
    unfinished: dict[str, list[Path]] = {}
    for folder in folders:
        for path in sorted(folder.glob("?" * 24 + "*")):
            name = path.name.removesuffix(PARTIAL)
            if not is_segment(name):
                continue
            # a server's own pg_wal holds the segment it was writing, and recycled ones
            if path.name == name and folder.name != "pg_wal":
                whole.setdefault(name, path)
            elif _starts_where_its_name_says(name, path):
                unfinished.setdefault(name, []).append(path)
    newest = {
        name: max(paths, key=lambda path: (path.parent == live, path.stat().st_mtime_ns))
        for name, paths in unfinished.items()
    }
    return whole, newest


def _segment_size(paths: Iterable[Path]) -> int:
    """Take the size that most segments state, so that one damaged header does not decide."""
    headers = (segment_header(path) for path in islice(paths, 9))
    stated = Counter(header.segment_size for header in headers if header is not None)
    size = max(stated, key=stated.__getitem__, default=SEGMENT_SIZE)
    return size if size.bit_count() == 1 else SEGMENT_SIZE


def _belongs(name: str, spans: tuple[Span, ...], size: int) -> bool:
    try:
        timeline, start = parse_segment(name, size)
    except ValueError as error:
        raise RestoreError(f"{error}; the other segments of this archive are") from None
    return any(
        span.timeline == timeline
        and span.start < start + size
        and (span.end is None or start < span.end)
        for span in spans
    )


def _starts_where_its_name_says(name: str, path: Path) -> bool:
    """Refuse segments that a server recycled or allocated ahead: their content is an older one."""
    header = segment_header(path)
    if header is None or header.segment_size.bit_count() != 1:
        return False
    return header.start == parse_segment(name, header.segment_size).start


def _lend_last_segments(
    chosen: dict[str, Path], whole: Container[str], spans: tuple[Span, ...], size: int
) -> None:
    """Where the last segment of a left timeline is not archived, its successor's stands in.

    A new timeline's first segment starts as a copy of the old one up to the switch (xlog.c,
    XLogInitNewTimeline), and servers archive the old one only as .partial, or never.
    """
    for old, new in pairwise(spans):
        name = segment_name(old.timeline, new.start, size)
        successor = segment_name(new.timeline, new.start, size)
        if new.start % size and name not in whole and successor in chosen:
            chosen[name] = chosen[successor]
