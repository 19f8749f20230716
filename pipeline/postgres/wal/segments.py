"""One folder that shows every archived WAL segment of a lineage, whoever archived it.

Three writers feed the repository: `wal/` (archive_command), `stream/<timeline>/` (pg_receivewal)
and `salvage/<id>/…/pg_wal/` (what a recovery saved from a damaged server).
"""

import struct
import tempfile
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import ObjectMissing, RestoreError
from pipeline.postgres.server.tools import Tools
from pipeline.postgres.wal.lsn import (
    LONG_PAGE_HEADER,
    SEGMENT_SIZE,
    Lsn,
    is_segment,
    parse_segment,
    segment_name,
)
from pipeline.postgres.wal.receiver import ExpectedEnd
from pipeline.postgres.wal.timelines import Span, lineage

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
    `unusable` says by segment which archived copies PostgreSQL would stop at, and why; where a
    sound copy lies elsewhere, that one is linked. `spare` names copies that were not looked at.
    """

    folder: Path
    spans: tuple[Span, ...]
    segments: frozenset[str]
    unfinished: frozenset[str]
    segment_size: int
    unusable: Mapping[str, str] = field(default_factory=dict)
    spare: Mapping[str, str] = field(default_factory=dict)


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
    repository: Path,
    into: Path,
    timeline: int,
    *,
    live: Path | None = None,
    system_identifier: str | None = None,
) -> MergedWal:
    """Link every segment of the lineage of `timeline`, and the history files, into a folder.

    Segments of other branches are left out: recovery must not follow a stray one. So are copies
    that are not of this server, the one with `system_identifier`: unless told that of the expected
    end. `live` is the pg_wal of the server itself, whose last words are believed before any copy.
    """
    server = system_identifier or _expected_server(repository)
    folders = [*([live] if live else []), *wal_folders(repository)]
    spans = tuple(lineage(timeline, folders))
    archived, unfinished = _candidates(folders, live, server)
    size = _segment_size([*chain.from_iterable(archived.values()), *unfinished.values()], server)
    ours = {name: paths for name, paths in archived.items() if _belongs(name, spans, size)}
    judged = {name: _judged(name, paths, size, server) for name, paths in ours.items()}
    whole = {name: found.path for name, found in judged.items() if found.path is not None}
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
    return MergedWal(
        into,
        spans,
        segments,
        unfinished=segments - whole.keys(),
        segment_size=size,
        unusable={name: found.troubles for name, found in judged.items() if found.troubles},
        spare={name: found.spare for name, found in judged.items() if found.spare},
    )


@contextmanager
def reading_view(
    repository: Path,
    timeline: int,
    tools: Tools,
    *,
    live: Path | None = None,
    system_identifier: str | None = None,
) -> Iterator[MergedWal]:
    """Merge into a temporary folder that PostgreSQL's programs may read."""
    with tempfile.TemporaryDirectory(prefix="pipeline-wal-") as folder:
        into = Path(folder)
        wal = merged_wal(repository, into, timeline, live=live, system_identifier=system_identifier)
        tools.own(into)
        yield wal


def _expected_server(repository: Path) -> str | None:
    """Name the server whose WAL this repository takes, as far as its receiver said."""
    with suppress(ObjectMissing):
        return ExpectedEnd.read(repository).system_identifier
    return None


def _candidates(
    folders: list[Path], live: Path | None, server: str | None
) -> tuple[dict[str, list[Path]], dict[str, Path]]:
    """Archived copies of each segment, and for each the one that may have ended early.

    Of the latter the server's own is taken, else the last written: an earlier recovery may have
    saved the same segment when it held less.
    """
    archived, unfinished = defaultdict[str, list[Path]](list), defaultdict[str, list[Path]](list)
    for folder in folders:
        for path in sorted(folder.glob("?" * 24 + "*")):
            name = path.name.removesuffix(PARTIAL)
            if not is_segment(name):
                continue
            # a server's own pg_wal holds the segment it was writing, and recycled ones
            if path.name == name and folder.name != "pg_wal":
                archived[name].append(path)
            elif _starts_where_its_name_says(name, path, server):
                unfinished[name].append(path)
    newest = {
        name: max(paths, key=lambda path: (path.parent == live, path.stat().st_mtime_ns))
        for name, paths in unfinished.items()
    }
    return archived, newest


class _Judged(NamedTuple):
    """The first copy of a segment that PostgreSQL would replay, and what is said of the others."""

    path: Path | None
    troubles: str
    spare: str


def _judged(name: str, paths: list[Path], size: int, server: str | None) -> _Judged:
    troubles = list[str]()
    for number, path in enumerate(paths, start=1):
        if (trouble := _trouble(name, path, size, server)) is None:
            spare = ", ".join(_place(other) for other in paths[number:])
            return _Judged(path, "; ".join(troubles), spare)
        troubles.append(f"{_place(path)} {trouble}")
    return _Judged(None, "; ".join(troubles), "")


def _place(path: Path) -> str:
    """Name a copy as people know its folder: wal/… or stream/1/…."""
    return "/".join(path.parts[-2:] if path.parent.name == "wal" else path.parts[-3:])


def _trouble(name: str, path: Path, size: int, server: str | None) -> str | None:
    """Tell why an archived copy cannot be the segment of its name, or None.

    PostgreSQL ends recovery at a file of another size (xlogarchive.c, RestoreArchivedFile), and at
    a first page of another server or position (xlogreader.c, XLogReaderValidatePageHeader).
    """
    if (found := path.stat().st_size) != size:
        return f"holds {found:,} of {size:,} bytes"
    header, start = segment_header(path), parse_segment(name, size).start
    if header is None or header.segment_size == 0:
        return "begins with nothing"
    if server is not None and header.system_identifier != server:
        return f"is of the server with system identifier {header.system_identifier}, not {server}"
    if header.start != start:
        return f"begins at {header.start}, its name says {start}"
    return None


def _segment_size(paths: Iterable[Path], server: str | None) -> int:
    """Take the size that most segments state, so that one damaged header does not decide."""
    headers = (header for path in paths if (header := segment_header(path)) is not None)
    own = (one for one in headers if server in {None, one.system_identifier})
    stated = Counter(header.segment_size for header in islice(own, 9))
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


def _starts_where_its_name_says(name: str, path: Path, server: str | None) -> bool:
    """Refuse segments that a server recycled or allocated ahead: their content is an older one."""
    header = segment_header(path)
    if header is None or header.segment_size.bit_count() != 1:
        return False
    if server not in {None, header.system_identifier}:
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
