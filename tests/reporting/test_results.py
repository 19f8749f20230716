"""What a run leaves: folders, JUnit, Allure results with measured times, metrics."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from fixtures.reporting import files
from fixtures.reporting.allure import run_files
from fixtures.reporting.redact import forms
from tests.reporting import sample
from tests.reporting.conftest import CANARY, SampleRun

TITLE = sample.lost_data().title


def allure_results(run: SampleRun) -> dict[str, dict[str, Any]]:
    results = [json.loads(path.read_text()) for path in run.results.glob("*-result.json")]
    return {result["name"]: result for result in results}


def test_steps_are_the_phases_at_their_measured_times(sample_run: SampleRun) -> None:
    """Private names of allure-pytest are used for this: an upgrade that changes them fails here."""
    report = sample.lost_data()
    steps = allure_results(sample_run)[TITLE]["steps"]
    assert [step["name"] for step in steps] == [phase.name for phase in report.phases]
    zero = datetime.fromisoformat(report.marks[0].utc).timestamp()
    for step, phase in zip(steps, report.phases, strict=True):
        assert step["start"] / 1000 - zero == pytest.approx(phase.start, abs=0.001)
        took = (step["stop"] - step["start"]) / 1000
        assert took == pytest.approx(phase.seconds or 0.0, abs=0.002)
        assert step["status"] == ("skipped" if phase.seconds is None else "passed")


def test_labels_and_attachments(sample_run: SampleRun) -> None:
    result = allure_results(sample_run)[TITLE]
    labels = {label["name"]: label["value"] for label in result["labels"]}
    assert labels["epic"] == "Recovery drills"
    assert labels["feature"] == "PostgreSQL"
    assert labels["severity"] == "blocker"
    assert labels["layer"] == "drill"
    assert labels["drill"] == "pitr.archive_gap"
    assert labels["host"] == "host", "no machine's name"
    assert all(p.get("excluded") for p in result["parameters"] if p["name"] == "seed")
    types = [attachment["type"] for attachment in result["attachments"]]
    assert types.count("image/svg+xml") == 3
    assert "text/csv" in types


def test_metrics_are_numbers_under_stable_keys(sample_run: SampleRun) -> None:
    samples = json.loads((sample_run.results / "pitr.archive_gap-perf.json").read_text())
    values = {sample["key"]: sample["value"] for sample in samples}
    assert values["rto.total.pitr.archive_gap"] == 45.3
    assert values["rto.catch-up.pitr.archive_gap"] == 4.8
    assert values["rpo.rows.pitr.archive_gap"] == 39
    assert values["rpo.seconds.pitr.archive_gap"] == 3.1
    assert all({"id", "key", "value", "start", "stop"} <= sample.keys() for sample in samples)
    assert not any("detect" in key for key in values), "what was not measured has no value"


def test_what_never_happened_has_no_metric() -> None:
    assert not {key for key in run_files.metrics(sample.not_verified()) if "total" in key}
    assert not {key for key in run_files.metrics(sample.not_verified()) if "rpo" in key}


def test_environment_and_executor(sample_run: SampleRun, tmp_path: Path) -> None:
    told = (sample_run.results / "environment.properties").read_text()
    assert "PostgreSQL = 18.4" in told
    assert "Commit = " in told
    run_files.write_executor(tmp_path, {})
    assert not list(tmp_path.iterdir()), "no CI, no executor"
    github = {"GITHUB_SERVER_URL": "https://h", "GITHUB_REPOSITORY": "o/r", "GITHUB_RUN_ID": "7"}
    run_files.write_executor(tmp_path, github)
    executor = json.loads((tmp_path / "executor.json").read_text())
    assert executor["buildUrl"] == "https://h/o/r/actions/runs/7"


def test_junit_has_the_same_ids(sample_run: SampleRun) -> None:
    cases = ET.parse(sample_run.junit).iter("testcase")  # noqa: S314 - our own file
    told = [{p.get("name"): p.get("value") for p in case.iter("property")} for case in cases]
    lost = next(one for one in told if one.get("drill") == "pitr.archive_gap")
    assert lost["drill_verdict"] == "LOST DATA"
    assert lost["rta"] == "45.3"
    assert lost["rpa_rows"] == "39"
    folder = sample_run.folder / str(lost["report"])
    assert files.read(folder).verdict == "LOST DATA"


def test_lost_rows_end_with_their_number(tmp_path: Path) -> None:
    folder = files.write(sample.lost_data(), tmp_path)
    lines = (folder / files.LOST).read_text().splitlines()
    assert lines[0] == "table,key,class,acknowledged,operation"
    assert len(lines) == 1 + 39 + 1
    assert lines[-1] == "# 39 rows above of 39 in all"


def test_marks_are_printed_as_they_happen(sample_run: SampleRun) -> None:
    lines = sample_run.output.splitlines()
    assert "  +0.00 s  t0   fault                         fault of lost_data" in lines


def test_final_blocks_are_printed_at_the_end(sample_run: SampleRun) -> None:
    assert f"LOST DATA  {TITLE}" in sample_run.output
    assert "reports/drills/pitr.archive_gap/20261123T213930Z" in sample_run.output


def written(run: SampleRun) -> Iterator[Path]:
    return (path for path in run.folder.rglob("*") if path.is_file() and path.suffix != ".py")


def test_canary_is_in_no_file(sample_run: SampleRun, page: Path) -> None:
    checked = [path for path in (*written(sample_run), page) if "__pycache__" not in path.parts]
    assert len(checked) > 30
    for path in checked:
        content = path.read_text(encoding="utf8", errors="replace")
        assert not [form for form in forms(CANARY) if form in content], path
