"""Progress arrives while a test goes on, at a terminal and through a pipe."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WAITS = """
from pathlib import Path
from time import monotonic, sleep
from fixtures.reporting.plugin import line_printer

def test_that_waits(request):
    line_printer(request.config)("it goes on")
    end = monotonic() + 10
    while not Path("seen").exists():
        assert monotonic() < end, "nobody saw the line"
        sleep(0.01)
"""


def test_a_line_comes_through_a_pipe_at_once(tmp_path: Path) -> None:
    (tmp_path / "test_waits.py").write_text(WAITS)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "fixtures.reporting.plugin", "test_waits.py"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        while line := process.stdout.readline():
            if "it goes on" in line:
                (tmp_path / "seen").touch()
    assert process.returncode == 0
