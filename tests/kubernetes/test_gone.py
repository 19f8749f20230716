"""Nothing of a node stays, whichever way its run ends. Before the others: one node at a time."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from fixtures import cache
from fixtures.stacks.kubernetes import down
from pipeline.wait import wait_until

pytestmark = pytest.mark.kubernetes
ONE = """
import sys
from fixtures.stacks.kubernetes.lab import Lab
with Lab.launch():
    print("up", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group as another kubelet of this machine makes them."""
    group = down.hierarchies()[0] / "kubepods"
    made = not group.exists()
    group.mkdir(exist_ok=True)
    with subprocess.Popen(["sleep", "600"]) as running:  # noqa: S607 - the machine's own
        (group / "cgroup.procs").write_text(str(running.pid))
        yield running
        running.kill()
        running.wait()
        if made:
            down._remove_group(group)


@pytest.mark.parametrize("killed", [False, True], ids=["ended", "killed"])
def test_nothing_is_left(stranger: subprocess.Popen[bytes], *, killed: bool) -> None:
    folder, before = cache.folder() / "lab", _settings()
    with subprocess.Popen(
        [sys.executable, "-c", ONE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        assert run.stdout.readline() == "up\n"
        assert _left(folder)
        if killed:
            run.kill()
        else:
            run.stdin.close()

    wait_until("the node is gone", lambda: _left(folder), within=timedelta(seconds=60))
    assert _settings() == before
    assert stranger.poll() is None


def _left(folder: Path) -> str | None:
    """Say what is there of a node, or None."""
    found = [str(folder)] if folder.exists() else []
    found += [f"process {pid}" for pid, cwd in down.working() if cwd.startswith(f"{folder}/")]
    found += down.mounts(folder) + [str(path) for path in down.cgroups()]
    for what, name in (("link", down.LINK), ("netns", down.NETWORK)):
        told = subprocess.run(["ip", what, "show"], capture_output=True, text=True, check=True)  # noqa: S607 - the machine's own
        found += [line for line in told.stdout.splitlines() if name in line]
    return ", ".join(found) or None


def _settings() -> str:
    """What a kubelet, a proxy or a container engine might change on the machine."""
    rules = subprocess.run(
        ["ip", "-o", "addr", "show"],  # noqa: S607 - the machine's own
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = ("kernel/panic", "kernel/panic_on_oops", "vm/overcommit_memory", "net/ipv4/ip_forward")
    return rules + "".join(Path("/proc/sys", name).read_text() for name in names)
