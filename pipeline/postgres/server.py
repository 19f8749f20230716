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
from pipeline.postgres.tools import Tools
from pipeline.wait import wait_until


@dataclass(frozen=True)
class LocalServer:
    """One data folder and the programs that run it. Its log goes to `log`, beside other logs."""

    data: Path
    tools: Tools
    log: Path

    def pid(self) -> int | None:
        """Process id of the postmaster that works in this folder, or None.

        Asked of the processes, not of postmaster.pid: that file outlives a killed server, and a
        server outlives its removed folder.
        """
        parents = dict(_working_in(str(self.data)))
        return next((pid for pid, parent in parents.items() if parent not in parents), None)

    def start(
        self,
        settings: Mapping[str, str] | None = None,
        within: timedelta = timedelta(seconds=10),
    ) -> None:
        """Start, with settings that hold for this start only, and return when the postmaster runs.

        A server that replays for longer than `within` is running too. That is not "recovered" and
        not "accepts connections": ask the server for either.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.touch()
        self.tools.own(self.log)
        position = self.log.stat().st_size
        options = shlex.join(
            word for name, value in (settings or {}).items() for word in ("-c", f"{name}={value}")
        )
        try:
            # waiting tells at once when the server dies; that it is "ready" is not believed
            self.tools.run(
                "pg_ctl",
                *("start", "--wait", f"--timeout={round(within.total_seconds())}", "--silent"),
                *(f"--pgdata={self.data}", f"--log={self.log}"),
                *([f"--options={options}"] if options else []),
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


def _working_in(folder: str) -> Iterator[tuple[int, int]]:
    """Processes with that working folder, and their parents, even if the folder was removed."""
    for entry in Path("/proc").iterdir():
        try:
            if str((entry / "cwd").readlink()) in {folder, f"{folder} (deleted)"}:
                state = (entry / "stat").read_text().rpartition(")")[2].split()
                yield int(entry.name), int(state[1])
        except (OSError, ValueError):
            continue  # not a process, not ours to see, or gone meanwhile


def not_refused(host: str, port: int) -> str | None:
    """Answer None only where connections are refused: a time-out or a password proves nothing."""
    try:
        with socket.create_connection((host, port), timeout=2):
            return "still accepts connections"
    except ConnectionRefusedError:
        return None
    except OSError as error:
        return f"cannot tell: {error}"
