"""Nothing of containers stays, whichever way their run ends."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from fixtures import cache
from fixtures.stacks.containers.stack import images
from pipeline.wait import wait_until

pytestmark = pytest.mark.containers
ONE = """
import sys
from fixtures import cache
from fixtures.stacks.containers.stack import ContainerStack, images
from fixtures.stacks.protocol import Component
with images(cache.quiet, stand_in=True) as held:
    with ContainerStack.launch(artifacts=held, components=[Component.POSTGRES]) as stack:
        print(stack.folder, flush=True)
        sys.stdin.read()
"""


@pytest.mark.parametrize("killed", [False, True], ids=["ended", "killed"])
def test_nothing_is_left(*, killed: bool) -> None:
    runs = cache.folder() / "runs"
    before = set(runs.iterdir())
    with subprocess.Popen(
        [sys.executable, "-c", ONE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        folder = Path(run.stdout.readline().strip())
        assert folder.parent == runs
        own = [each for each in set(runs.iterdir()) - before if (each / "docker.sock").exists()]
        assert _left(folder, *own)
        if killed:
            run.kill()
        else:
            run.stdin.close()

    wait_until("its end", lambda: _left(folder, *own), within=timedelta(seconds=120))
    with images(cache.quiet, stand_in=True):  # the next run takes away what only it can
        pass
    assert not list(Path("/sys/fs/cgroup").glob("*/recovery-drills"))


def _left(*folders: Path) -> str | None:
    """Say what is there of a run and of its engine, or None."""
    mounts = Path("/proc/mounts").read_text()
    found = [str(folder) for folder in folders if folder.exists() or f"{folder}/" in mounts]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            cwd = os.readlink(process / "cwd")  # noqa: PTH115 - it may name what is deleted
        except OSError:
            continue
        found += [process.name for folder in folders if cwd.startswith(str(folder))]
    return ", ".join(found) or None
