"""No room, no permission, no server: one clear line, exit code 1, and nothing like a backup."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from fixtures.stacks.protocol import Component
from pipeline.repository import marker
from pipeline.wait import wait_until
from tests.recovery.history import SOON, Source
from tests.reliability.conftest import configured
from tests.reliability.rounds import PATIENCE, Ended, Pipeline, running

KINDS = ["base", "logical"]
ROOM = 1 << 20  # bytes: less than any of these backups, more than a manifest


@pytest.fixture
def elsewhere(source: Source) -> Pipeline:
    """A repository of the test's own, empty."""
    path = source.stack.folder / "scratch" / "refused"
    path.mkdir(exist_ok=True)
    for left in path.iterdir():
        left.unlink()
    marker.make(str(path))
    repository = source.config.repository.model_copy(update={"path": path})
    config = source.config.model_copy(update={"repository": repository})
    return Pipeline(source, configured(config, source, "refused.toml"), path)


def refused(ended: Ended, told: str) -> None:
    """One line for the operator, and no traceback."""
    assert ended.code == 1, ended
    assert "Traceback" not in ended.err
    assert told in ended.err
    assert ended.err.startswith("error: ")


def nothing_left(pipeline: Pipeline) -> None:
    """Not a set, not a part of one, and no folder that looks like one."""
    assert pipeline.repository.labels() == []
    left = {path.name for path in pipeline.folder.rglob("*") if path.is_file()}
    assert left <= {marker.MARKER, marker.WAL_OF}


@pytest.mark.parametrize("kind", KINDS)
def test_no_room(elsewhere: Pipeline, kind: str) -> None:
    ended = elsewhere.run("backup", kind, limit=ROOM)
    refused(ended, "File too large")
    assert "cannot write 'sets/" in ended.err
    nothing_left(elsewhere)


def test_no_room_for_a_segment(elsewhere: Pipeline, source: Source) -> None:
    """PostgreSQL keeps the segment and asks again: it must not hear 0."""
    segment = source.data / "pg_wal" / source.archive()
    folder = source.stack.folder / "scratch"
    header = segment.read_bytes()[: 8 << 10]
    (kept := folder / segment.name).write_bytes(header + os.urandom((16 << 20) - len(header)))
    command = elsewhere.command("wal", "push", str(elsewhere.folder), str(kept))[:-2]
    limited = ["bash", "-c", f'ulimit -f {ROOM >> 10}; exec "$@"', "bash", *command]
    done = subprocess.run(
        limited, capture_output=True, text=True, check=False, timeout=PATIENCE, **elsewhere.place()
    )
    assert (done.returncode, "File too large" in done.stderr) == (1, True)
    nothing_left(elsewhere)
    again = subprocess.run(command, check=False, timeout=PATIENCE, **elsewhere.place())
    assert again.returncode == 0
    assert (elsewhere.folder / "wal" / kept.name).read_bytes() == kept.read_bytes()
    (elsewhere.folder / "wal" / kept.name).unlink()
    (elsewhere.folder / "wal").rmdir()
    kept.unlink()


@pytest.mark.parametrize("kind", KINDS)
def test_no_permission(elsewhere: Pipeline, kind: str) -> None:
    """As root too: without the capability that lets it pass over permissions."""
    command = elsewhere.command("backup", kind)
    if os.geteuid() == 0:
        os.chown(elsewhere.folder, 0, 0)
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    elsewhere.folder.chmod(0o555)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, **elsewhere.place()
        )
    finally:
        elsewhere.folder.chmod(0o755)
    refused(Ended(done.returncode, done.stdout, done.stderr), "Permission denied")
    nothing_left(elsewhere)


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_is_stopped_in_the_middle(
    elsewhere: Pipeline, source: Source, kind: str
) -> None:
    """Frozen where it works, so that it is killed in the middle, however fast the machine is."""
    program = {"base": "pg_basebackup", "logical": "pg_dump"}[kind]
    with running(elsewhere.command("backup", kind), elsewhere.place()) as process:
        (pid,) = _appeared(program, process)
        os.kill(pid, signal.SIGSTOP)
        source.stack.kill(Component.POSTGRES)
        os.kill(pid, signal.SIGCONT)
        out, err = process.communicate(timeout=PATIENCE)
    source.stack.start(Component.POSTGRES)
    refused(Ended(process.returncode, out, err), program)
    nothing_left(elsewhere)


def _appeared(program: str, parent: "subprocess.Popen[str]") -> list[int]:
    found: list[int] = []

    def there() -> str | None:
        assert parent.poll() is None, parent.communicate()
        found[:] = _children(parent.pid, program)
        return None if found else f"no {program} yet"

    wait_until(program, there, within=2 * SOON)
    return found


def _children(parent: int, program: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
            if name == program and int(rest.split()[1]) == parent:
                found.append(int(entry.name))
        except (OSError, ValueError):
            continue
    return found


def test_the_server_is_not_there(elsewhere: Pipeline, source: Source) -> None:
    source.stack.stop(Component.POSTGRES)
    try:
        refused(elsewhere.run("backup", "base"), "Connection refused")
    finally:
        source.stack.start(Component.POSTGRES)
    nothing_left(elsewhere)
