"""A throw-away server with the rows of a moment, beside the live one: read it, then forget it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from pipeline.config import PipelineConfig, PostgresConfig
from pipeline.errors import ConfigError, RestoreError
from pipeline.postgres.base.restore import unpack
from pipeline.postgres.logical import globals as server_globals
from pipeline.postgres.logical import logical
from pipeline.postgres.logical.locales import make_database
from pipeline.postgres.replay.replay import Replayed, private_server
from pipeline.postgres.server import session
from pipeline.postgres.server.isolation import forget_configuration
from pipeline.postgres.server.server import LocalServer
from pipeline.postgres.server.tools import Tools
from pipeline.postgres.wal.lsn import Lsn
from pipeline.repository.journal import held
from pipeline.repository.sets import BackupSet, Repository, total_size
from pipeline.repository.store import FolderStore
from pipeline.runbooks.plan import Plan
from pipeline.runbooks.replaying import Connect, branch_off, order_of, replayed

PREFIX = "side-"
LOADED = "loaded"
# nothing of it has to survive, and it must fit beside the live server
SETTINGS = {"fsync": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class SideServer:
    """A server in a folder of its own below `[scratch] path`; `sweep` forgets it."""

    config: PipelineConfig
    folder: Path

    @classmethod
    def named(cls, config: PipelineConfig, name: str) -> "SideServer":
        """Give it the folder of one recovery."""
        return cls(config, scratch(config) / (PREFIX + name))

    @property
    def server(self) -> LocalServer:
        tools = Tools.of(self.config.postgres)
        return LocalServer(self.folder / "data", tools, self.folder / "postgresql.log")

    def unpack(self, label: str) -> int:
        """Bring a base backup back into the folder, where there is room for it.

        Raises RestoreError where there is none; what an interrupted run left is begun anew.
        """
        backup = Repository(FolderStore(self.config.repository.path)).get(label)
        self.forget()
        # as much again for the WAL that is replayed into it
        needed = 2 * int(backup.manifest.facts["database_bytes"])
        _refuse_without_room(needed, scratch(self.config))
        self.folder.mkdir(mode=0o755)
        self.server.tools.own(self.folder)
        size = unpack(backup, self.server.data, self.server.tools)
        forget_configuration(self.server.data)
        return size

    @contextmanager
    def at_target(
        self, plan: Plan, progress: Callable[[Lsn], None]
    ) -> Iterator[tuple[Replayed, Connect]]:
        """Replay to the target, prove it, promote, and give a way to connect as superuser."""
        postgres, order = self.config.postgres, order_of(self.config, plan, self.folder / "wal")
        with replayed(self.server, order, postgres, progress, SETTINGS) as (stood, connect):
            with connect() as connection:
                branch_off(self.server, order, stood, connection)
            yield stood, connect

    @contextmanager
    def loaded(self, backup: BackupSet) -> Iterator[Connect]:
        """Make a new server, load a dump of a whole database, prove it, and give a way to connect.

        Roles are those of the live server, without passwords: owners and grants need them.
        """
        self.forget()
        # a dump is compressed, and its indexes are to be built
        _refuse_without_room(10 * total_size(backup.manifest.objects), scratch(self.config))
        self.folder.mkdir(mode=0o755)
        postgres, server, facts = self.config.postgres, self.server, backup.manifest.facts
        server.tools.own(self.folder)
        account = "--auth=trust", f"--username={postgres.user}", f"--encoding={facts['encoding']}"
        server.tools.run("initdb", "--no-sync", *account, "--no-locale", f"--pgdata={server.data}")
        with private_server(
            server, user=postgres.user, port=postgres.port, settings=SETTINGS
        ) as connect:
            with connect() as first:
                _make_roles(first, postgres)
                make_database(first, LOADED, backup)
                host = first.info.host
            reached = {"host": host, "dbname": LOADED, "password": None, "password_file": None}
            into = postgres.model_copy(update=reached)
            logical.restore(backup, into)
            yield lambda: session.connect(into, autocommit=True)

    def forget(self) -> None:
        """End the server if it runs, and remove the folder."""
        self.server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def scratch(config: PipelineConfig) -> Path:
    """Folder for side servers; ConfigError when none is configured."""
    if config.scratch is None:
        raise ConfigError("[scratch] path is not configured: a side server needs room of its own")
    config.scratch.path.mkdir(parents=True, exist_ok=True)
    return config.scratch.path


@contextmanager
def alone(config: PipelineConfig) -> Iterator[None]:
    """Hold the place of side servers, and sweep what a killed run left; RecoveryRefused if held."""
    place = scratch(config)
    with held(place / f"{PREFIX}lock", f"{place}: another side server is at work"):
        for folder in place.glob(f"{PREFIX}*"):
            if folder.is_dir():
                SideServer(config, folder).forget()
        yield


def _make_roles(connection: psycopg.Connection[Any], live: PostgresConfig) -> None:
    for statement in server_globals.roles(live, first=live.user):
        if statement != f"CREATE ROLE {server_globals.spelled(live.user)};":
            connection.execute(statement.encode())


def _refuse_without_room(needed: int, place: Path) -> None:
    free = shutil.disk_usage(place).free
    if free < needed:
        raise RestoreError(
            f"[scratch] path {place}: expected {needed:,} bytes free, found {free:,}"
        )
