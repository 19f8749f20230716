"""The same damage before each tool: seen at the backup, at rest, at the restore, or silent.

Silent means: the tool said that all was well, the restored server runs, and rows are not in it,
or not as they were.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from bench.cluster import Bench
from bench.damages import AFTER_A_PROMOTION, BEFORE_THE_BACKUP, IN_A_REPOSITORY, Case
from bench.measure import Say
from bench.scenes import CONTENT, Make, Scene, plain, promoted, spoilt
from bench.sides import Side
from pipeline.errors import PipelineError

UP = timedelta(seconds=40)
Story = tuple[Callable[[], AbstractContextManager[Scene]], list[Case]]


@dataclass(frozen=True)
class Seen:
    """What one tool made of one damage; `content` is that of the restored table, `42 <digest>`.

    `warned` is what it says of the intact repository too: that does not count as seeing damage.
    """

    at_backup: str | None = None
    at_rest: str | None = None
    refused: str | None = None
    content: str | None = None
    warned: tuple[str, ...] = ()

    def cell(self, truth: str) -> str:
        if self.at_backup is not None:
            return "at backup"
        if self.at_rest is not None:
            return "at rest"
        if self.refused is not None:
            return "at restore"
        came_back = outcome(self.content or "", truth)
        if self.warned:
            rules = dict.fromkeys(words.partition(":")[0] for words in self.warned)
            return f"{came_back}; warns by {', '.join(f'`{rule}`' for rule in rules)}"
        return came_back


def outcome(content: str, truth: str) -> str:
    """A cell for what came back without an error."""
    if content == truth:
        return "not seen, nothing lost"
    found, expected = content.partition(" ")[0], truth.partition(" ")[0]
    return "**silent** " + (
        "(a row is another)" if found == expected else f"({found} of {expected})"
    )


class Detection:
    """Puts each damage into each repository, and writes down what is said."""

    def __init__(self, make: Make, say: Say) -> None:
        self._make, self._say = make, say
        self._habits: set[tuple[str, str]] = set()
        self.raw: list[dict[str, Any]] = []

    def run(self, only: str | None = None) -> str:
        """Run every case and answer the table."""
        for arrange, cases in self._stories(only):
            with arrange() as scene:
                for case in cases:
                    if only in {None, case.number} or not case.number:
                        self._row(scene, case)
        names = list(dict.fromkeys(line["tool"] for line in self.raw))
        rows: dict[tuple[str, str], list[str]] = {}
        for line in self.raw:
            rows.setdefault((line["class"], line["damage"]), []).append(line["cell"])
        return "\n".join(
            [
                f"| class | damage | {' | '.join(names)} |",
                "|---|---|" + "---|" * len(names),
                *(
                    f"| {number} | {damage} | {' | '.join(cells)} |"
                    for (number, damage), cells in sorted(rows.items(), key=_by_class)
                ),
            ]
        )

    def _stories(self, only: str | None) -> Iterator[Story]:
        """Those with the wanted class; what each tool says without cause comes before the rest."""
        make = self._make
        all_stories: list[Story] = [
            (partial(plain, make), IN_A_REPOSITORY),
            (partial(promoted, make), AFTER_A_PROMOTION),
        ]
        spoiling = [(partial(spoilt, make, change), [case]) for case, change in BEFORE_THE_BACKUP]
        for story in all_stories:
            if only is None or only in {case.number for case in story[1]}:
                yield story
        if only is None or only in {case.number for case, _ in BEFORE_THE_BACKUP}:
            yield from spoiling

    def _row(self, scene: Scene, case: Case) -> None:
        cells = []
        for side in scene.sides:
            seen = self._judged(scene, case, side)
            cells.append(seen.cell(scene.truth))
            self.raw.append(
                {
                    "class": case.number,
                    "damage": case.title,
                    "tool": side.name,
                    "cell": cells[-1],
                    **asdict(seen),
                }
            )
        self._say(f"  {case.number:>3} {case.title}: {', '.join(cells)}")

    def _judged(self, scene: Scene, case: Case, side: Side) -> Seen:
        if side.name in scene.refused:
            return Seen(at_backup=scene.refused[side.name][-600:])
        scene.reset(side)
        case.inject(scene, side)
        # without the folder, which is another one for each scene
        told = [words.replace(str(scene.bench.folder), "") for words in side.at_rest()]
        if not case.number:
            self._habits |= {(side.name, words) for words in told}
        new = "\n".join(words for words in told if (side.name, words) not in self._habits) or None
        warned = () if case.number else tuple(told)
        into = scene.bench.folder / "restored"
        shutil.rmtree(into, ignore_errors=True)
        try:
            side.restore(into)
            content = _content(scene.bench, into)
        except (PipelineError, RuntimeError, psycopg.Error) as error:
            return Seen(at_rest=new, refused=f"{type(error).__name__}: {error}"[-600:])
        return Seen(at_rest=new, content=content, warned=warned)


def _by_class(row: tuple[tuple[str, str], list[str]]) -> int:
    return int(row[0][0] or 0)


def _content(bench: Bench, data: Path) -> str:
    """Content of the restored table; that the query fails is seen as well."""
    with bench.restored(data) as conninfo:
        bench.promoted(conninfo, within=UP)
        with psycopg.connect(**conninfo) as connection:
            row = connection.execute(CONTENT.encode()).fetchone()
    return str(row[0]) if row else "no answer"
