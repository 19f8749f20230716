"""However the owner of a run ends, no process and no file of the run is left."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from fixtures import cache
from fixtures.stacks import runs
from fixtures.stacks.artifacts import Artifacts
from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component
from fixtures.stacks.reaper import processes_inside
from pipeline.errors import ServerError
from pipeline.wait import wait_until

pytestmark = pytest.mark.stack
Owner = tuple[subprocess.Popen[str], Path]


def close(owner: subprocess.Popen[str]) -> None:
    assert owner.stdin is not None
    owner.stdin.close()


def interrupt(owner: subprocess.Popen[str]) -> None:
    os.killpg(owner.pid, signal.SIGINT)  # as a terminal does


@pytest.mark.parametrize("end", [close, interrupt, subprocess.Popen.kill])
def test_nothing_is_left(
    artifacts: Artifacts,  # noqa: ARG001 - installed before the clock runs
    end: Callable[[subprocess.Popen[str]], None],
) -> None:
    with owner_of_a_run() as (owner, folder), owner_of_a_run() as (_, other):
        assert len(processes_inside(folder)) > 3
        end(owner)
        wait_until_gone(folder)
        assert len(processes_inside(other)) > 3  # another run at the same time is not disturbed


def test_what_a_killed_reaper_left_is_swept_by_the_next_run(
    artifacts: Artifacts,  # noqa: ARG001 - installed before the clock runs
) -> None:
    with owner_of_a_run() as (owner, folder):
        (reaper,) = (
            child
            for child in psutil.Process(owner.pid).children()
            if any("reaper.py" in word for word in child.cmdline())
        )
        reaper.kill()
        owner.kill()
        owner.wait()
        assert len(processes_inside(folder)) > 3
        runs.sweep(folder.parent)
        wait_until_gone(folder)


@contextmanager
def owner_of_a_run() -> Iterator[Owner]:
    """Start tests/stack/owner.py in a process group of its own and wait for its folder."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.stack.owner"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as owner:
        try:
            assert owner.stdout is not None
            folder = Path(owner.stdout.readline().strip())
            assert folder.parent == (cache.folder() / "runs").resolve()
            yield owner, folder
        finally:
            owner.kill()


def wait_until_gone(folder: Path) -> None:
    def left() -> str | None:
        alive = processes_inside(folder)
        return f"{folder}: processes {alive}" if alive or folder.exists() else None

    wait_until("nothing left", left, within=timedelta(seconds=20))


def test_what_a_drill_left_running_makes_the_end_red(artifacts: Artifacts) -> None:
    """It is killed all the same: red is told, nothing stays."""
    stack = NativeStack.launch(artifacts=artifacts, components=[Component.POSTGRES])
    with subprocess.Popen(["sleep", "600"], cwd=stack.folder) as left:  # noqa: S607 - any will do
        with pytest.raises(ServerError, match=f"left running.*process {left.pid} .sleep 600"):
            stack.close()
        assert left.wait() == -signal.SIGKILL
    assert not stack.folder.exists()
