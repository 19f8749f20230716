"""A server that ends late or not at all: every child is collected, and the person is told."""

import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from fixtures import cache
from fixtures.cache import SetupError
from fixtures.stacks import server, training
from fixtures.stacks.artifacts import Artifacts, installed
from fixtures.stacks.layout import Layout
from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component
from fixtures.stacks.server import JavaServer
from pipeline.errors import ServerError

SOON = timedelta(seconds=0.3)
# what a JVM is told stands in its arguments; `late` seconds after SIGTERM it writes its archive
STAND_IN = """\
#!{python} -S
import re, signal, sys, time
archive = re.search("-XX:AOTCacheOutput=(.*?.aot)", "\\n".join(sys.argv))
def end(*_):
    time.sleep({late})
    if archive and {writes}:
        open(archive[1], "w").close()
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
while True:
    signal.pause()
"""


class StandIn(JavaServer):
    """The process that any of the Java servers would be, ready when it says so."""

    name = "stand-in"

    def unready(self) -> str | None:
        return None if "ready" in self.log.read_text() else "not ready"

    @property
    def collected(self) -> bool:
        process = self._process
        return isinstance(process, subprocess.Popen) and process.returncode is not None


@pytest.fixture
def stood_in(monkeypatch: pytest.MonkeyPatch) -> list[StandIn]:
    """The stand-ins that were made; a layout makes them in place of its servers."""
    made: list[StandIn] = []

    def make(layout: Layout, component: Component, *_rest: object) -> StandIn:
        names = {Component.REGISTRY: "apicurio"}
        command = layout._artifacts.java_command(names.get(component, str(component)))  # type: ignore[arg-type]  # the name of a Java server
        made.append(StandIn(layout.folder / component, layout.log(component), command, {}))
        return made[-1]

    monkeypatch.setattr(Layout, "server", make)
    return made


def java(folder: Path, *, late: float, writes: bool = True) -> Artifacts:
    """Artifacts with the stand-in as their Java, and an empty folder for archives."""
    program = folder / "java"
    program.write_text(STAND_IN.format(python=sys.executable, late=late, writes=writes))
    program.chmod(0o755)
    return replace(installed(), java=program, cds=folder / "cds")


def test_one_that_does_not_stop_in_time_is_killed_and_collected(
    stood_in: list[StandIn], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn.stop, "__defaults__", (SOON,))
    said: list[str] = []
    NativeStack.launch(
        artifacts=java(tmp_path, late=600),
        components=[Component.KAFKA],
        progress=said.append,
        runs=tmp_path / "runs",
    ).close()
    assert [one.collected for one in stood_in] == [True]
    assert any("did not stop in order" in line for line in said)


def test_those_of_a_launch_that_failed_are_collected(
    stood_in: list[StandIn], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where killing them takes longer than anybody waits for."""
    monkeypatch.setattr(StandIn, "unready", lambda _self: "never")
    monkeypatch.setattr(server, "READY_WITHIN", SOON)
    monkeypatch.setattr(StandIn, "kill", lambda _self: None)
    with pytest.raises(ServerError, match="never"):
        NativeStack.launch(
            artifacts=java(tmp_path, late=0), components=[Component.KAFKA], runs=tmp_path / "runs"
        )
    assert [one.collected for one in stood_in] == [True]


def test_one_that_was_interrupted_while_it_ends_is_collected(
    stood_in: list[StandIn], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_what: object) -> None:
        raise KeyboardInterrupt

    stack = NativeStack.launch(
        artifacts=java(tmp_path, late=600), components=[Component.KAFKA], runs=tmp_path / "runs"
    )
    monkeypatch.setattr(StandIn, "stop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stack.close()
    assert [one.collected for one in stood_in] == [True]
    assert not stack.folder.exists()


def test_recording_tells_each_server_and_goes_on_beyond_the_limit_of_a_stop(
    stood_in: list[StandIn],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An archive may take minutes, where a stop of a drill may not."""
    monkeypatch.setattr(StandIn.stop, "__defaults__", (SOON,))
    artifacts = java(tmp_path, late=1)
    monkeypatch.setenv("RECOVERY_DRILLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(training, "installed", lambda _progress: artifacts)
    said: list[str] = []
    training.prepared(said.append)
    assert {path.name for path in artifacts.cds.iterdir()} == {
        ".complete",
        *training.ARCHIVES.values(),
    }
    assert [line.split()[0] for line in said] == ["recording", "registry", "connect", "kafka"]
    assert all(one.collected for one in stood_in)


@pytest.mark.parametrize(("late", "writes"), [(600, True), (0, False)], ids=["late", "never"])
def test_an_archive_that_was_not_written_says_what_to_do(
    stood_in: list[StandIn],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    late: float,
    *,
    writes: bool,
) -> None:
    """The message names the server, its log and the way on; the next run records again."""
    monkeypatch.setattr(training, "WRITTEN_WITHIN", SOON)
    artifacts = java(tmp_path, late=late, writes=writes)
    monkeypatch.setenv("RECOVERY_DRILLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(training, "installed", lambda _progress: artifacts)
    with pytest.raises(SetupError, match=r"make setup") as told:
        training.prepared()
    assert not (artifacts.cds / ".complete").exists()
    assert all(one.collected for one in stood_in)
    if late:
        assert str(told.value).startswith("registry did not write its archive")
        (log,) = (tmp_path / "cache" / "runs").glob("*/logs/registry.log")
        assert str(log) in str(told.value)


def test_what_takes_long_is_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SILENCE", 0.02)
    said: list[str] = []
    with cache.audible(said.append) as progress:
        progress("fetching")
        while len(said) < 3:
            time.sleep(0.01)
    assert said[0] == "fetching"
    assert said[1].startswith("fetching: ")
    assert said[1].endswith(" s so far")
