"""One small run of sample drills with Allure results, and its page, for all tests here."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures.reporting.render import render

ROOT = Path(__file__).parents[2]
CANARY = "canary/7Qz+secret=9"

SAMPLES = """
import pytest
from dataclasses import replace
from datetime import UTC, datetime
from fixtures.incident import Mark, Moment
from fixtures.reporting.plugin import phase_printer, publish
from fixtures.reporting.summary import failure
from pipeline.errors import RecoveryRefused
from tests.reporting import sample
from tests.reporting.conftest import CANARY

class NotVerified(Exception):
    pass

@pytest.mark.parametrize("case", ["recovered", "lost_data", "target_missed", "not_verified"])
def test_drill(case, request):
    report = getattr(sample, case)()
    tell = phase_printer(request.config)
    tell(Moment(Mark.FAULT, 1.0, datetime.now(UTC), 0.0, f"fault of {case}"))
    told = {"utc": report.started, "command": f"psql postgres://u:{CANARY}@h/d", "secret": CANARY}
    report = replace(report, commands=[*report.commands, told])
    publish(report, request.node, secrets=[CANARY])
    if report.verdict == "NOT VERIFIED":
        raise NotVerified(failure(report))
    if report.verdict != "RECOVERED":
        pytest.fail(failure(report), pytrace=False)

def test_refused():
    raise RecoveryRefused("postgres at 127.0.0.1:5432 is not what was named")

@pytest.mark.allure_label("Backup validation", label_type="epic")
def test_check():
    assert False, "FAIL postgres.wal-archive-complete"
"""


@dataclass(frozen=True)
class SampleRun:
    """What a run of the sample drills left behind."""

    folder: Path
    results: Path
    junit: Path
    output: str


@pytest.fixture(scope="session")
def sample_run(tmp_path_factory: pytest.TempPathFactory) -> SampleRun:
    """Run the sample drills in a process of their own."""
    folder = tmp_path_factory.mktemp("samples")
    (folder / "test_samples.py").write_text(SAMPLES)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = allure_label\n")
    run = SampleRun(folder, folder / "results", folder / "junit.xml", "")
    files = [f"--rootdir={folder}", f"--alluredir={run.results}", f"--junitxml={run.junit}"]
    plugin = ["-p", "fixtures.reporting.plugin"]
    settings = {name: told for name, told in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugin, *files, "test_samples.py"],
        cwd=folder,
        env=settings | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return SampleRun(folder, run.results, run.junit, done.stdout)


@pytest.fixture(scope="session")
def page(sample_run: SampleRun) -> Path:
    """The page of the sample run. It fails, and does not skip, where Allure cannot be had."""
    return render(sample_run.results, sample_run.folder / "reports")
