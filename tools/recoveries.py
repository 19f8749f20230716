"""`python -m tools.recoveries`: the table of recoveries in the documents, from kept results alone.

`keep` first takes over every run of drills that this clone has made, red ones and those without a
report too, and numbers them on. The file is committed; nobody writes the table by hand.
"""

import json
import statistics
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from fixtures.reporting import runs
from fixtures.reporting.runs import Run
from fixtures.reporting.summary import seconds
from pipeline.config import Objective, Objectives

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "docs" / "recoveries.jsonl"
PAGES = (ROOT / "README.md", ROOT / "docs" / "procedures.md")
BEGIN, END = "<!-- recoveries: python -m tools.recoveries -->\n", "<!-- end of recoveries -->"
RECOVERIES = {
    "one table": "one_table",
    "point in time": "point_in_time",
    "topic replay": "topic_replay",
    "slot recreation": "slots",
    "schema registry": "registry",
    "full pipeline": "full_pipeline",
}
HEAD = (
    "| recovery | objective | actual: median | worst | runs | rows lost, worst | largest size "
    "| slowest phase | last run | its verdict |"
)
SERVICES = (
    "What topic replay loses are records that only a service wrote, behind the last archive: its "
    "objective there is that archive."
)
NOT_MEASURED = "not measured"
NO_RECOVERY = ("control", "rehearsal")
RED = "ends_red"
"""In the name of a drill that must end red: its times are of no recovery."""


def table(kept: Iterable[Run]) -> Iterator[str]:
    """Yield the lines of the table; a recovery that nobody drilled says so."""
    measured, objectives = list(kept), Objectives()
    yield HEAD
    yield "|" + "---|" * (HEAD.count("|") - 1)
    for name, scenario in RECOVERIES.items():
        of = [run for run in measured if run.get("scenario") == scenario and _recovers(run)]
        row = [name, _objective(getattr(objectives, scenario)), *_actual(of)]
        yield "| " + " | ".join(row) + " |"
    silent = sum(run["verdict"] == runs.NO_REPORT for run in measured)
    yield ""
    yield f"{len(measured)} runs of drills are kept, {silent} of them never came to a report."
    yield SERVICES


def _recovers(run: Run) -> bool:
    return RED not in run["drill"] and not run["drill"].startswith(NO_RECOVERY)


def _objective(objective: Objective) -> str:
    rpo = objective.rpo.total_seconds()
    return f"RTO {seconds(objective.rto.total_seconds())}, RPO {seconds(rpo) if rpo else '0 rows'}"


def _actual(of: list[Run]) -> list[str]:
    times = [run["rta"] for run in of if run["rta"] is not None]
    if not times:
        return [NOT_MEASURED, "", str(len(of)), "", "", "", "", ""]
    longest, last = max(of, key=lambda run: run["rta"] or 0), of[-1]
    lost = [run["rows_lost"] for run in of if run["rows_lost"] is not None]
    phase, took = longest["slowest"] or ("", 0.0)
    good = sum(run["verdict"] == "RECOVERED" for run in of)
    return [
        seconds(statistics.median(times)),
        seconds(max(times)),
        f"{len(of)}, {good} RECOVERED",
        f"{max(lost):,}" if lost else NOT_MEASURED,
        f"{max(run['size'].get('rows', 0) for run in of):,} rows",
        f"{phase} {seconds(took)}",
        last["began"][:10],
        last["verdict"],
    ]


def keep(made: Iterable[Run], kept: list[Run]) -> list[Run]:
    """Take over the runs that are not kept yet, in their order, numbered on without a hole."""
    known = {run["id"] for run in kept}
    new = [run for run in made if run["id"] not in known]
    return kept + [run | {"number": len(kept) + 1 + place} for place, run in enumerate(new)]


def written(page: str, lines: Iterable[str]) -> str:
    """Put the table between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"recoveries: expected {BEGIN.strip()} and {END} in the page")
    told = "".join(f"{line}\n" for line in lines)
    return f"{before}{BEGIN}\n{told}\n{END}{after}"


def main(arguments: list[str]) -> None:
    """Keep what was run, where told to, and write the table into every page."""
    if arguments not in ([], ["keep"]):
        raise SystemExit("usage: python -m tools.recoveries [keep]")
    kept = runs.read(KEPT)
    if arguments:
        kept = keep(runs.read(ROOT / runs.FILE), kept)
        KEPT.write_text("".join(f"{json.dumps(run)}\n" for run in kept))
    lines = list(table(kept))
    for page in PAGES:
        page.write_text(written(page.read_text(), lines))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
