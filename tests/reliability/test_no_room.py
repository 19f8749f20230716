"""A full disk, a real one: it is said what and where, nothing is left, and room heals it."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from fixtures.stacks.artifacts import shell_python
from pipeline.postgres.history.waldump import readable_end
from pipeline.postgres.wal import wal_command
from pipeline.postgres.wal.lsn import Lsn
from pipeline.postgres.wal.receiver_status import ReceiverStatus
from pipeline.repository import marker
from pipeline.wait import wait_until
from tests.recovery.history import SOON, Source
from tests.reliability.conftest import configured
from tests.reliability.room import Room, little_room
from tests.reliability.rounds import PATIENCE, Ended, Pipeline, running, whole_sets

LITTLE, ENOUGH = "8m", "800m"


@pytest.fixture
def room(source: Source) -> Iterator[Room]:
    with little_room(source.stack.folder / "scratch" / "room", LITTLE) as room:
        marker.make(str(room.seen))
        source.tools.own(room.seen)
        yield room


@pytest.fixture
def inside(source: Source, room: Room) -> Pipeline:
    """The command line, with a repository where there is little room."""
    repository = source.config.repository.model_copy(update={"path": room.folder})
    config = source.config.model_copy(update={"repository": repository})
    return Pipeline(source, configured(config, source, "room.toml"), room.folder)


def backup(kind: str) -> Callable[[Pipeline], list[str]]:
    return lambda pipeline: pipeline.command("backup", kind)


def push(pipeline: Pipeline) -> list[str]:
    segment = pipeline.source.data / "pg_wal" / pipeline.source.archive()
    command = [str(shell_python(None)), "-S", "-E", wal_command.__file__]
    return [*command, "push", str(pipeline.folder), str(segment)]


def unpack(pipeline: Pipeline) -> list[str]:
    source = pipeline.source
    source.back_up("unpacked")
    source.archive()
    source.expect(source.position())
    words = [str(configured(source.config, source)), str(pipeline.folder / "data"), "unpacked"]
    return [sys.executable, "-m", "tests.reliability.recovering", *words]


def one_set(pipeline: Pipeline) -> None:
    assert len(pipeline.repository.labels()) == 1
    whole_sets(pipeline.repository, set())


def one_segment(pipeline: Pipeline) -> None:
    (segment,) = pipeline.folder.rglob("0*")
    assert segment.read_bytes() == (pipeline.source.data / "pg_wal" / segment.name).read_bytes()


def one_server(pipeline: Pipeline) -> None:
    assert {path.name for path in pipeline.folder.iterdir()} == {"data", marker.MARKER}


@dataclass(frozen=True)
class Case:
    """A command that fills the disk, and what it must say beside the place and the cause."""

    command: Callable[[Pipeline], list[str]]
    told: str
    spread: bool = False  # over a tablespace
    proven: Callable[[Pipeline], None] = one_set


CASES = {
    "base": Case(backup("base"), "base.tar.zst' to "),
    "logical": Case(backup("logical"), "database.dump' to "),
    "staged": Case(backup("base"), "could not write to file", spread=True),
    "push": Case(push, "not archived in ", proven=one_segment),
    "unpack": Case(unpack, "cannot be unpacked into ", proven=one_server),
}


@pytest.fixture
def spread(source: Source) -> Iterator[Callable[[], None]]:
    """Give the server a tablespace, for as long as the test runs."""
    place = source.stack.folder / "scratch" / "aside"

    def make() -> None:
        place.mkdir()
        source.tools.own(place)
        source.run(f"create tablespace aside location '{place}'")

    yield make
    if place.exists():
        source.run("drop tablespace aside")
        place.rmdir()


def run(room: Room, pipeline: Pipeline, command: list[str]) -> Ended:
    done = subprocess.run(
        room.inside(*command),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        **pipeline.place(),
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_full_disk(room: Room, inside: Pipeline, case: Case, spread: Callable[[], None]) -> None:
    if case.spread:
        spread()
    command = case.command(inside)
    ended = run(room, inside, command)
    assert ended.code == 1, ended
    assert "Traceback" not in ended.err
    for told in (case.told, str(room.folder), "No space left on device"):
        assert told in ended.err
    assert room.files() == []
    room.enlarge(ENOUGH)
    ended = run(room, inside, command)
    assert ended.code == 0, ended
    case.proven(Pipeline(inside.source, inside.configuration, room.seen))


def test_a_full_disk_beneath_the_receiver(room: Room, inside: Pipeline, source: Source) -> None:
    """It has room for one segment and half of the next; what it goes on with has no gap."""
    room.enlarge("24m")

    def come(position: Lsn) -> str | None:
        found = ReceiverStatus.read(room.seen)
        return None if not found.reason and (found.received or 0) >= position else f"{found}"

    with running(room.inside(*inside.command("wal", "receive")), inside.place()) as process:
        assert process.stdout is not None
        assert "streaming timeline 1" in process.stdout.readline()
        start = source.position()
        for _ in range(2):
            source.archive()
        assert any("No space left on device" in line for line in process.stdout)
        room.enlarge(ENOUGH)
        wanted = source.write("with room again").after
        wait_until(f"{wanted} received", lambda: come(wanted), within=2 * SOON)
        process.terminate()
        assert process.wait(timeout=PATIENCE) == 0
    source.run("select pg_drop_replication_slot('pipeline_receiver')")
    copy = room.folder.with_name("streamed")  # the server's owner cannot look into the room
    shutil.copytree(room.seen, copy)
    source.tools.own(copy)
    end = readable_end(copy, source.tools, timeline=1, start=start)
    assert end.lsn >= wanted, end.reason
