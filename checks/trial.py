"""Servers that bring a backup back on this machine, reached by nobody else, and thrown away."""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from checks import logical_dump
from checks.check import NotRun
from pipeline.config import PipelineConfig, PostgresConfig
from pipeline.errors import PipelineError, RestoreError, ServerError
from pipeline.postgres.base import chain
from pipeline.postgres.base.base_backup import archives
from pipeline.postgres.base.restore import unpack
from pipeline.postgres.logical import globals as server_globals
from pipeline.postgres.logical import logical
from pipeline.postgres.replay.replay import private_server
from pipeline.postgres.server import session
from pipeline.postgres.server.isolation import explained, forget_configuration
from pipeline.postgres.server.server import LocalServer
from pipeline.postgres.server.tools import Tools
from pipeline.repository.sets import BackupSet, total_size
from pipeline.wait import wait_until

Connect = Callable[[str], psycopg.Connection[Any]]
"""Connects to a database of a trial server, by its name."""

START = timedelta(minutes=10)
PORT = 5432  # names the socket in a private folder; nothing listens on it
LOG = "failed-trial-restore.log"
GROWS = 5  # times the size of packed increments
OWNER = "trial_restore"  # of the new server: roles of the backup keep their names
# durability is not needed for what is thrown away, and a small machine must hold it
SETTINGS = {"fsync": "off", "shared_buffers": "64MB"}
_PLACE = re.compile(r"(?m)^(CREATE TABLESPACE .* LOCATION )'.*';$")


def room_of(config: PipelineConfig) -> Path:
    """The folder for trial restores; NotRun where none is configured."""
    if config.scratch is None:
        raise NotRun("[scratch] path is not configured: nothing was restored")
    return config.scratch.path


def enough_room(path: Path, size: int, *, beside: int = 0) -> None:
    """Raise NotRun where the volume has not twice that many bytes, and those beside it."""
    needed, free = 2 * size + beside, shutil.disk_usage(path).free
    if free < needed:
        raise NotRun(f"[scratch] path: {needed:,} bytes are needed, {free:,} are free")


def enough_room_for(path: Path, backup: BackupSet) -> None:
    """Raise NotRun where a base backup, with its chain unpacked beside it, does not fit."""
    full, *increments = chain.links(backup)
    packed = sum(total_size(archives(link)) for link in increments)
    whole, result = (int(one.manifest.facts["database_bytes"]) for one in (full, backup))
    enough_room(path, result, beside=whole + GROWS * packed if increments else 0)


@contextmanager
def brought_back(
    backup: BackupSet, path: Path, tools: Tools, *, user: str, libraries: Iterable[str] = ()
) -> Iterator[Connect]:
    """Unpack a base backup below `path` and let its server replay its own WAL, in private."""
    enough_room_for(path, backup)
    with folder_in(path, tools) as folder:
        server = LocalServer(folder / "data", tools, folder / "postgresql.log")
        unpack(backup, server.data, tools)
        forget_configuration(server.data)
        settings = {**SETTINGS, "shared_preload_libraries": ",".join(libraries)}
        with (
            log_kept(server, path),
            private_server(server, user=user, port=PORT, settings=settings) as connect,
        ):
            host, superuser = _answering(server, connect)
            place = PostgresConfig(host=host, port=PORT, user=superuser)
            yield lambda dbname: session.connect(place, autocommit=True, dbname=dbname)


@contextmanager
def loaded(backup: BackupSet, path: Path, tools: Tools) -> Iterator[Connect]:
    """Make a new server below `path`, and load roles, then the database, as after a disaster."""
    facts = backup.manifest.facts
    with folder_in(path, tools) as folder:
        server = LocalServer(folder / "data", tools, folder / "postgresql.log")
        account = ("--auth=trust", f"--username={OWNER}", f"--encoding={facts['encoding']}")
        tools.run("initdb", "--no-sync", *account, "--locale=C", f"--pgdata={server.data}")
        settings = {**SETTINGS, "allow_in_place_tablespaces": "on"}
        with (
            log_kept(server, path),
            private_server(server, user=OWNER, port=PORT, settings=settings) as first,
        ):
            with first() as connection:
                host = connection.info.host

            def connect(dbname: str) -> psycopg.Connection[Any]:
                place = PostgresConfig(host=host, port=PORT, user=OWNER)
                return session.connect(place, autocommit=True, dbname=dbname)

            _load(backup, tools, folder, host, connect)
            yield connect


def _load(backup: BackupSet, tools: Tools, folder: Path, host: str, connect: Connect) -> None:
    """Load as docs/procedures.md says: any error of any statement is an error of the backup."""
    facts = backup.manifest.facts
    address = (f"--host={host}", f"--port={PORT}", f"--username={OWNER}", "--no-password")
    roles, dump = folder / logical.GLOBALS, folder / logical.DUMP
    logical_dump.copy_out(backup, logical.GLOBALS, roles)
    # a tablespace of this machine is never written into: those of the trial lie inside of it
    as_bytes = {"encoding": "utf-8", "errors": "surrogateescape"}  # the database may be in LATIN1
    statements = _PLACE.sub(r"\1'';", roles.read_text(**as_bytes))
    roles.write_text(server_globals.granted_by(statements, OWNER), **as_bytes)
    logical_dump.copy_out(backup, logical.DUMP, dump)
    for path in (roles, dump):
        tools.own(path)
    # settings of the database that it makes are not those of the load
    env = {"PGOPTIONS": session.options(session.UNGUARDED)}
    psql = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", *address)
    tools.run("psql", *psql, "--dbname=template1", f"--file={roles}", env=env)
    with connect("template1") as connection:
        # `postgres` is in every new server, and the dump makes it with settings of its own
        drop = sql.SQL("drop database if exists {}")
        connection.execute(drop.format(sql.Identifier(facts["database"])))
    loading = ("--exit-on-error", "--create", *address, "--dbname=template1")
    tools.run("pg_restore", *loading, dump, env=env)


@contextmanager
def folder_in(path: Path, tools: Tools) -> Iterator[Path]:
    """A new folder for the server's owner, removed at the end of the context."""
    with tempfile.TemporaryDirectory(prefix="trial-", dir=path) as name:
        tools.own(Path(name))
        yield Path(name)


@contextmanager
def log_kept(server: LocalServer, path: Path) -> Iterator[None]:
    """Keep what a server said that failed, for it is thrown away, and name the file."""
    try:
        yield
    except PipelineError as error:
        kept = path / LOG
        if not server.log.exists():
            raise
        shutil.copyfile(server.log, kept)
        raise RestoreError(f"{error}\nIts whole log is kept: {kept}") from error


def _answering(
    server: LocalServer, connect: Callable[[], psycopg.Connection[Any]]
) -> tuple[str, str]:
    """Wait for the end of replay, and tell the folder of the socket, and who may read all."""
    found: list[tuple[str, str]] = []

    def starting() -> str | None:
        if server.pid() is None:
            raise ServerError(f"the server gave up:\n{explained(server.told())}")
        try:
            with connect() as connection:
                found.append((connection.info.host, connection.info.user))
        except psycopg.OperationalError as error:
            return str(error).strip()
        return None

    wait_until(f"start of {server.data}", starting, within=START)
    if not found:
        raise RestoreError(f"{server.data}: the server did not answer")
    return found[-1]
