"""Timelines: which branch of history a position in the WAL belongs to."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import RestoreError
from pipeline.postgres.wal.lsn import Lsn


class Span(NamedTuple):
    """The part of a lineage that one timeline wrote: from `start` up to, not including, `end`."""

    timeline: int
    start: Lsn
    end: Lsn | None


def history_name(timeline: int) -> str:
    """Name of the file that tells how a timeline came to be; timeline 1 has none."""
    return f"{timeline:08X}.history"


def parse_history(text: str, timeline: int) -> list[Span]:
    """Lineage of `timeline`, oldest first, from the text of its history file.

    Each line is: parent timeline, the position where it was left, a reason
    (timeline.c, readTimeLineHistory). RestoreError names a line that is not.
    """
    spans: list[Span] = []
    start = Lsn(0)
    for number, line in enumerate(text.splitlines(), 1):
        if not (told := line.partition("#")[0].split()):
            continue
        where = f"{history_name(timeline)}, line {number}"
        try:
            parent, end = int(told[0]), Lsn.parse(told[1])
        except (ValueError, IndexError):
            raise RestoreError(f"{where}: expected a timeline and an LSN, found {line!r}") from None
        if parent <= (spans[-1].timeline if spans else 0) or parent >= timeline or end < start:
            raise RestoreError(f"{where}: timelines and positions must grow, found {line!r}")
        spans.append(Span(parent, start, end))
        start = end
    return [*spans, Span(timeline, start, None)]


def lineage(timeline: int, folders: Iterable[Path]) -> list[Span]:
    """Lineage of `timeline` by the first history file found in `folders`.

    RestoreError when there is none: without it nobody knows where the timeline branched off.
    """
    if timeline == 1:
        return [Span(1, Lsn(0), None)]
    name = history_name(timeline)
    searched = list(folders)
    for folder in searched:
        if (path := folder / name).is_file():
            return parse_history(path.read_text(), timeline)
    raise RestoreError(
        f"timeline {timeline}: no {name} in {', '.join(map(str, searched)) or 'any folder'}"
    )


def prove_branch(data: Path, timeline: int, parent: int, left: Lsn) -> None:
    """Raise RestoreError unless a server's new timeline left `parent` right where it stood."""
    lived = lineage(timeline, [data / "pg_wal"])[:-1]
    if not lived or (lived[-1].timeline, lived[-1].end) != (parent, left):
        found = f"timeline {lived[-1].timeline} at {lived[-1].end}" if lived else "none"
        raise RestoreError(
            f"{history_name(timeline)} in {data}: expected timeline {timeline} to have left "
            f"timeline {parent} at {left}, where replay stood, found that it left {found}"
        )


def timeline_at(spans: Iterable[Span], lsn: Lsn) -> int:
    """Find the timeline of a lineage that wrote the byte at `lsn`."""
    for span in spans:
        if span.start <= lsn and (span.end is None or lsn < span.end):
            return span.timeline
    raise RestoreError(f"no timeline of this lineage holds {lsn}")


def branches_of(timeline: int, folders: Iterable[Path]) -> dict[int, Lsn]:
    """Timelines that left `timeline`, directly or later, and where: what a reader of it misses."""
    branches: dict[int, Lsn] = {}
    for path in sorted(path for folder in folders for path in folder.glob("????????.history")):
        child = int(path.stem, 16)
        for span in parse_history(path.read_text(), child)[:-1]:
            if span.timeline == timeline and span.end is not None:
                branches[child] = span.end
    return branches
