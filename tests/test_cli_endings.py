"""How a command ends that cannot go on: one line, an exit code, and no login in any of it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETUP = """
import os, sys
from pipeline import cli
from pipeline.cli import look
from pipeline.errors import PipelineError
def list_sets():
    try:
        {body}
    finally:
        print("cleaned up", flush=True)
look.list_sets = list_sets
sys.argv = ["pipeline", "list"]
cli.main()
"""


def command(body: str, **environment: str) -> "subprocess.Popen[str]":
    """Start `pipeline list` with other insides."""
    return subprocess.Popen(
        [sys.executable, "-c", SETUP.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
    )


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    with process:
        out, errors = process.communicate(timeout=60)
        return process.returncode, out, errors


def test_an_error_that_nobody_expected_is_one_line_and_a_file(tmp_path: Path) -> None:
    body = "raise ValueError('http://me:hush@host/x:\\nis odd')"
    code, _, errors = ended(command(body, XDG_STATE_HOME=str(tmp_path)))
    (file,) = (tmp_path / "pipeline").iterdir()
    assert code == 1
    assert errors == f"error: ValueError: http://host/x: is odd; the traceback is in {file}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    assert "list_sets" in text
    assert "hush" not in text


def test_a_home_that_cannot_be_written_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    closed = str(tmp_path / "file" / "state")
    code, _, errors = ended(command("1 / 0", XDG_STATE_HOME=closed, TMPDIR=str(tmp_path)))
    (file,) = tmp_path.glob("error-*.txt")
    assert code == 1
    assert errors.endswith(f"division by zero; the traceback is in {file}\n")


@pytest.mark.parametrize("kind", ["PipelineError", "RuntimeError"])
def test_no_message_tells_a_login(kind: str, tmp_path: Path) -> None:
    body = f"raise {kind}('GET https://me:p%40ss@host:8081/subjects: refused')"
    _, out, errors = ended(command(body, XDG_STATE_HOME=str(tmp_path)))
    assert "https://host:8081/subjects: refused" in errors
    assert "p%40ss" not in out + errors


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 1, "error: ended by SIGTERM\n")],
    ids=["interrupt", "terminate"],
)
def test_a_signal_cleans_up_and_is_one_line(number: signal.Signals, code: int, told: str) -> None:
    body = "print('begun', flush=True); import time; time.sleep(600)"
    # what a test runner in the background ignores it would hand on
    with command(
        f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {body}"
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (code, "cleaned up\n", told)


def test_a_reader_that_is_gone_is_no_news() -> None:
    """As in `pipeline list | head -1`."""
    process = command("[print('x' * 999) for _ in range(999)]; sys.stdout.flush()")
    assert process.stdout is not None
    process.stdout.close()
    with process:
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_the_version_is_that_of_the_project() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "--version"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    number = (ROOT / "pyproject.toml").read_text().partition('\nversion = "')[2].partition('"')[0]
    assert done.stdout.startswith(f"pipeline {number}")


def test_what_a_command_waits_for_is_said() -> None:
    """On standard error: standard output may be read by a program."""
    body = (
        "from datetime import timedelta; from pipeline import wait; wait._QUIET = timedelta(0); "
        "wait.wait_until('server', lambda: 'http://me:hush@host', within=timedelta(seconds=0.2))"
    )
    code, out, errors = ended(command(body))
    first, *_, last = errors.splitlines()
    assert (code, out) == (1, "cleaned up\n")
    assert first.startswith("waiting for server, 0 of 0 s: http://host")
    assert last == "error: server: not within 0.2 s; last seen: http://host"
