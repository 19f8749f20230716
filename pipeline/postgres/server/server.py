"""A PostgreSQL server on this machine, by its data folder."""

import os
import shlex
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pipeline.errors import ServerError, ToolError
from pipeline.postgres.server.processes import running
from pipeline.postgres.server.tools import Tools
from pipeline.wait import wait_until

_SERVERS = ("postgres", "edb-postgres")


@dataclass(frozen=True)
class LocalServer:
    """One data folder and the programs that run it. Its log goes to `log`, beside other logs."""

    data: Path
    tools: Tools
    log: Path

    def pid(self) -> int | None:
        """Process id of the postmaster that works in this folder, or None.

        Asked of the processes that execute PostgreSQL there, and not of postmaster.pid alone: that
        file outlives a killed server, and a server outlives its removed folder.
        """
        found = {each.pid: each for each in running(*_SERVERS) if each.works_in(self.data)}
        first = [pid for pid, each in found.items() if each.parent not in found]
        return self._locked_by() if self._locked_by() in first else next(iter(first), None)

    def _locked_by(self) -> int | None:
        """Process id in the folder's lock file, which may be stale; None where none is there."""
        try:
            return int((self.data / "postmaster.pid").read_text().partition("\n")[0])
        except (OSError, ValueError):
            return None

    def start(
        self,
        settings: Mapping[str, str] | None = None,
        within: timedelta = timedelta(seconds=10),
    ) -> None:
        """Start, with settings that hold for this start only, and return when the postmaster runs.

        It works in this folder whatever data_directory its files name. A server that replays for
        longer than `within` is running too. That is not "recovered" and not "accepts connections":
        ask the server for either.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.touch()
        self.tools.own(self.log)
        position = self.log.stat().st_size
        given = {"data_directory": str(self.data), **(settings or {})}
        options = shlex.join(
            word for name, value in given.items() for word in ("-c", f"{name}={value}")
        )
        try:
            # waiting tells at once when the server dies; that it is "ready" is not believed
            self.tools.run(
                "pg_ctl",
                *("start", "--wait", f"--timeout={round(within.total_seconds())}", "--silent"),
                *(f"--pgdata={self.data}", f"--log={self.log}"),
                f"--options={options}",
                cwd=self.data,
            )
        except ToolError as error:
            if self.pid() is None:
                told = f"{self.data}: {error}\n{self.told(position)}"
                raise ServerError(told) from error

    def stop(self, within: timedelta = timedelta(seconds=60)) -> None:
        """Fast shutdown; a folder without a server is already stopped."""
        pid = self.pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGINT)

        def stopped() -> str | None:
            return f"postmaster {pid} still runs" if self.pid() else None

        wait_until(f"stop of {self.data}", stopped, within=within)

    def reload(self) -> None:
        """Make the server read its configuration again."""
        self.tools.run("pg_ctl", "reload", "--silent", f"--pgdata={self.data}", cwd=self.data)

    def told(self, position: int = 0, lines: int = 20) -> str:
        """Last lines of the log after a byte position."""
        with self.log.open("rb") as stream:
            stream.seek(position)
            return "\n".join(stream.read().decode(errors="replace").splitlines()[-lines:])


@contextmanager
def private_socket(tools: Tools) -> Iterator[Path]:
    """A folder for a socket that only we and the server's owner can reach.

    Under the system's temporary folder, because a socket's path is limited to 107 bytes.
    """
    with tempfile.TemporaryDirectory(prefix="pipeline-") as name:
        folder = Path(name)
        tools.own(folder)
        yield folder


def not_refused(host: str, port: int) -> str | None:
    """Answer None only where connections are refused: a time-out or a password proves nothing.

    `host` may be the folder of a socket, as for every client of PostgreSQL.
    """
    try:
        with _connected(host, port):
            return "still accepts connections"
    except ConnectionRefusedError:
        return None
    except OSError as error:
        return f"cannot tell: {error}"


def _connected(host: str, port: int) -> socket.socket:
    if not host.startswith("/"):
        return socket.create_connection((host, port), timeout=2)
    path = Path(host) / f".s.PGSQL.{port}"
    if not path.exists():
        raise ConnectionRefusedError
    opened = socket.socket(socket.AF_UNIX)
    opened.settimeout(2)
    try:
        opened.connect(str(path))
    except OSError:
        opened.close()
        raise
    return opened
