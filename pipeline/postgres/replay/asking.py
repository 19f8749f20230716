"""Asking a private server while it replays: whether it moves, and whether a database is there."""

import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import psycopg

from pipeline.errors import BeginAgain, RestoreError
from pipeline.postgres.server.server import LocalServer

STALLED = timedelta(seconds=60)
UNREACHED = timedelta(minutes=30)
"""How long a server may take to its consistent state without a new segment of WAL."""
_MAINTENANCE = ("postgres", "template1")
# of a database, which may come and go by replay; of a server that lets nobody in yet
_NO_DATABASE = re.compile("database .* does not exist|invalid database|not currently accepting")
_NOT_YET = "the database system is"
_STARTUP = re.compile(rb"startup .*([0-9A-F]{24})")
_DATABASES = """
    select datname from pg_database where datallowconn and datconnlimit <> -2 order by 1
"""


class Connect(Protocol):
    """Connects to a private server: to the database that it was started for, or to another."""

    def __call__(self, dbname: str = ...) -> psycopg.Connection[Any]: ...


@dataclass
class Silence:
    """A server that lets nobody ask: it is waited for while segments of WAL arrive."""

    server: LocalServer
    position: int
    replaying: str = ""
    since: float = field(default_factory=time.monotonic)

    def told(self, why: str) -> str:
        """Answer why nobody can ask; RestoreError when nothing has happened for too long."""
        # at the end a standby asks for the last ones again and again
        if self.replaying < (now := _replaying(self.server)):
            self.replaying, self.since = now, time.monotonic()
        patience = UNREACHED if _NOT_YET in why else STALLED
        if time.monotonic() - self.since > patience.total_seconds():
            raise RestoreError(
                f"the server answers nobody, and replays nothing, for {patience}: {why}\n"
                f"{self.server.told(self.position)}\nits log: {self.server.log}"
            )
        return f"not yet consistent, in segment {self.replaying or 'unknown'}: {why}"


def _replaying(server: LocalServer) -> str:
    """The segment that the startup process has in its title, or nothing."""
    titles = list[bytes]()
    with suppress(OSError):
        children = Path(f"/proc/{(pid := server.pid())}/task/{pid}/children").read_text().split()
        titles = [Path(f"/proc/{child}/cmdline").read_bytes() for child in children]
    found = (_STARTUP.search(title) for title in titles)
    return next((segment[1].decode() for segment in found if segment), "")


def anywhere(connect: Connect) -> psycopg.Connection[Any]:
    """Connect to a database that is there: the one that is wanted may come, or go, by replay."""
    try:
        return connect()
    except psycopg.OperationalError as error:
        if _NO_DATABASE.search(str(error)):
            for name in _MAINTENANCE:
                with suppress(psycopg.OperationalError):
                    return connect(name)
        raise


def refuse_without_database(connect: Connect, stands: str) -> None:
    """Raise BeginAgain where the database that is wanted is not there, or is invalid."""
    try:
        connect().close()
    except psycopg.OperationalError as error:
        if not _NO_DATABASE.search(str(error)):
            raise
        with anywhere(connect) as connection:
            there = connection.execute(_DATABASES).fetchall()
        raise BeginAgain(
            f"replay for {stands}, and there {str(error).strip()}. Databases that "
            f"are there: {', '.join(name for (name,) in there)}. Nothing was promoted: begin a new "
            "recovery, to a target at which it is there"
        ) from error
