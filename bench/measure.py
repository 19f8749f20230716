"""Runs side by side: in turn, round after round, so that a busy moment falls on all of them."""

import contextlib
import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Say = Callable[[str], None]
BEGIN, END = "<!-- bench: {} begins -->", "<!-- bench: {} ends -->"


@dataclass(frozen=True)
class Series:
    """Seconds of one contestant, round by round; `size` in bytes where it wrote something."""

    name: str
    seconds: tuple[float, ...]
    size: int | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def over(self, other: "Series") -> float:
        """Median of the ratios of each round: what disturbed one disturbed its neighbour."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({min(self.seconds):.2f} to {max(self.seconds):.2f})"


def timed(action: Callable[[], object]) -> float:
    """Seconds by a clock that nobody sets."""
    begun = time.monotonic()
    action()
    return time.monotonic() - begun


def processor_seconds() -> float:
    """Seconds of CPU that this process has taken so far, and its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def interleaved(
    contestants: Mapping[str, Callable[[], float]],
    rounds: int,
    say: Say,
) -> dict[str, Series]:
    """Let each run once a round, another one first each time; an action answers its seconds."""
    names, seconds = list(contestants), {name: list[float]() for name in contestants}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            seconds[name].append(contestants[name]())
        say(f"  round {number + 1}: " + ", ".join(f"{n} {seconds[n][-1]:.2f} s" for n in names))
    return series(seconds)


def series(seconds: Mapping[str, Sequence[float]]) -> dict[str, Series]:
    """What was noted of each contestant, round by round."""
    return {name: Series(name, tuple(each)) for name, each in seconds.items()}


def cold(folder: Path) -> None:
    """Make the system forget what it has read of a folder: all contestants read from the disk."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        with contextlib.suppress(FileNotFoundError):  # a live server removes files meanwhile
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def table(title: str, series: Mapping[str, Series], reference: str, note: str = "") -> str:
    """Markdown: median, minimum and maximum, and the ratio to one of them."""
    lines = [
        f"| {title} | s: median (min to max) | ratio to {reference} | MB |",
        "|---|---|---|---|",
    ]
    for each in series.values():
        size = "" if each.size is None else f"{each.size / 1e6:,.0f}"
        lines.append(f"| {each.name} | {each} | {each.over(series[reference]):.2f} | {size} |")
    return "\n".join([*lines, *(["", note] if note else [])])


def aim(what: str, most: float, found: float) -> str:
    """Say whether an aim was reached, and by which figure."""
    verdict = "reached" if found <= most else "missed"
    return f"Aim: {what} at most {most:g}: {verdict} ({found:.4g})."


def machine() -> str:
    """What the figures depend on, without a name."""
    return f"{len(os.sched_getaffinity(0))} cores, one disk"


def write_block(document: Path, name: str, text: str) -> None:
    """Replace the part of a document between its two markers."""
    begin, end = BEGIN.format(name), END.format(name)
    before, _, rest = document.read_text().partition(begin)
    document.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}")


def write_raw(folder: Path, name: str, facts: object) -> Path:
    """Keep what was measured, as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(facts, indent=1, default=str) + "\n")
    return path
