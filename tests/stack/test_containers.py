"""What a stack in containers does on this machine, seen without an engine; with one it conforms."""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from fixtures import cache
from fixtures.cache import SetupError
from fixtures.stacks import clusters
from fixtures.stacks.artifacts import installed
from fixtures.stacks.containers import engine
from fixtures.stacks.containers.pg_ctl import Programs
from fixtures.stacks.ports import Ports
from pipeline.errors import ServerError
from pipeline.postgres.server.server import LocalServer
from pipeline.postgres.server.tools import Tools


class Process:
    """A server without a container around it."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process.poll() is None else None


class AsTheOwner:
    """In place of an engine: the same programs as the server's owner."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self.started: list[subprocess.Popen[bytes]] = []

    def start(
        self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path
    ) -> Process:
        with log.open("ab") as said:
            self.started.append(
                self._tools.popen(*command, cwd=cwd, env=env, stdout=said, stderr=said)
            )
        return Process(self.started[-1])


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """A cluster whose programs ask a run to start it."""
    own, ports = Tools(installed().postgres / "bin"), Ports()
    with tempfile.TemporaryDirectory(prefix="elsewhere-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server's owner passes through
        password = folder / "password"
        password.write_text("secret")
        own.own(password)
        clusters.make(folder / "data", own, user="postgres", password_file=password)
        with (folder / "data" / "postgresql.conf").open("a") as conf:
            conf.write(f"port = {ports.take()}\nunix_socket_directories = ''\n")
        host = AsTheOwner(own)
        programs = Programs(folder / "bin", own, host)
        served = LocalServer(folder / "data", Tools(programs.folder), folder / "log")
        yield served
        served.stop()
        programs.close()
        for process in host.started:
            process.wait()
    ports.close()


def test_a_recovery_starts_reloads_and_stops_a_server_that_another_starts(
    server: LocalServer,
) -> None:
    server.start({"application_name": "it's given"})
    assert server.pid() is not None
    server.reload()
    server.stop()
    assert server.pid() is None


def test_a_server_that_dies_while_another_starts_it_is_told(server: LocalServer) -> None:
    with pytest.raises(ServerError, match="could not start server"):
        server.start({"no_such": "setting"})
    assert 'unrecognized configuration parameter "no_such"' in server.told()


def test_without_docker_and_without_root_it_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(engine.HOST, f"unix://{tmp_path}/none")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SetupError, match=r"no Docker answers here.*install Docker"):
        engine.engine(cache.quiet).__enter__()
