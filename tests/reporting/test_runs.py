"""Every run of a drill is in the list, and the table of recoveries says what the list says."""

import json
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from fixtures.reporting import runs
from fixtures.reporting.runs import Run
from tests.reporting import sample
from tools import recoveries


def test_a_run_that_was_killed_is_in_the_list(tmp_path: Path) -> None:
    file = tmp_path / "reports" / "runs.jsonl"
    for drill in ("killed", "ended", "killed_again"):
        run = runs.begin(file, drill)
        if drill == "ended":
            runs.end(file, run, replace(sample.recovered(), drill=drill))
    assert [(one["number"], one["drill"], one["verdict"]) for one in runs.read(file)] == [
        (1, "killed", runs.NO_REPORT),
        (2, "ended", "RECOVERED"),
        (3, "killed_again", runs.NO_REPORT),
    ]


def test_a_line_that_was_cut_short_swallows_no_other(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    runs.begin(file, "one")
    with file.open("ab") as stream:
        stream.write(b'\n{"number": 2, "id"')
    runs.begin(file, "two")
    assert [one["number"] for one in runs.read(file)] == [1, 2]


def test_workers_that_begin_at_once_have_numbers_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    context = get_context("spawn")
    workers = [context.Process(target=runs.begin, args=(file, str(n))) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [one["number"] for one in runs.read(file)] == [1, 2, 3, 4]


def test_what_is_kept_is_numbered_on_and_never_twice() -> None:
    made: list[Run] = [
        {"id": name, "number": n, "drill": name} for n, name in enumerate("abc", start=1)
    ]
    kept = recoveries.keep(made[:2], [])
    kept = recoveries.keep(made, recoveries.keep([{"id": "z", "number": 1, "drill": "z"}], kept))
    assert [(run["id"], run["number"]) for run in kept] == [("a", 1), ("b", 2), ("z", 3), ("c", 4)]


def run(drill: str, rta: float | None, verdict: str = "RECOVERED") -> Run:
    return {
        "drill": drill,
        "scenario": "one_table",
        "verdict": verdict,
        "rta": rta,
        "rows_lost": 0,
        "slowest": ["replay", rta],
        "size": {"rows": 1000},
        "began": "2026-03-01T02:03:04+00:00",
    }


def test_the_table_counts_bad_runs_and_leaves_out_what_is_no_recovery() -> None:
    kept = [
        run("one_table_dropped", 10.0),
        run("one_table_dropped", 30.0),
        run("one_table_dropped", None, "NOT VERIFIED"),
        run("one_table_from_nowhere_ends_red", 900.0, "NOT VERIFIED"),
        run("control", 900.0),
        {"drill": "one_table_dropped", "verdict": runs.NO_REPORT},
    ]
    lines = list(recoveries.table(kept))
    row = next(line for line in lines if line.startswith("| one table "))
    told = [cell.strip() for cell in row.split("|")[3:-1]]
    assert told[:3] == ["20.0 s", "30.0 s", "3, 2 RECOVERED"]
    assert told[5:] == ["replay 30.0 s", "2026-03-01", "NOT VERIFIED"]
    assert lines[-2] == "6 runs of drills are kept, 1 of them never came to a report."


def test_a_recovery_that_nobody_drilled_says_so() -> None:
    rows = [line for line in recoveries.table([]) if line.startswith("| ")][1:]
    assert len(rows) == len(recoveries.RECOVERIES)
    assert all(recoveries.NOT_MEASURED in row for row in rows)


@pytest.mark.parametrize("page", recoveries.PAGES, ids=lambda page: page.name)
def test_the_documents_have_the_table_of_the_kept_runs(page: Path) -> None:
    """Run `python -m tools.recoveries` where this is red: the table is never written by hand."""
    text, lines = page.read_text(), list(recoveries.table(runs.read(recoveries.KEPT)))
    assert recoveries.written(text, lines) == text


def test_the_kept_runs_are_numbered_without_holes() -> None:
    kept = [json.loads(line) for line in recoveries.KEPT.read_text().splitlines()]
    assert [run["number"] for run in kept] == list(range(1, len(kept) + 1))
    assert len({run["id"] for run in kept}) == len(kept)
