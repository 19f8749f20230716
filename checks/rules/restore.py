"""The only proof of a backup is a restore: on this machine, into a server that is thrown away."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import psycopg
from psycopg import sql

from checks.check import NotRun, Observation, check
from checks.subjects import TrialRestore
from fixtures.faults import backups, files
from fixtures.scratch import Damage, Scratch
from pipeline.errors import PipelineError, ServerError
from pipeline.postgres.replay import private_server
from pipeline.postgres.restore import unpack
from pipeline.postgres.server import LocalServer
from pipeline.wait import wait_until

Connect = Callable[[], psycopg.Connection[Any]]

START = timedelta(minutes=10)
PORT = 5432  # names the socket in a private folder; nothing listens on it
# durability is not needed for what is thrown away, and a small machine must hold it
SETTINGS = {"fsync": "off", "shared_buffers": "64MB", "ssl": "off", "shared_preload_libraries": ""}


@check(
    "restore.base-backup-starts",
    on=TrialRestore,
    severity="blocker",
    advice="This backup does not bring the data back: take a new one now, prove it with this "
    "check, and keep the older sets until then.",
)
def base_backup_starts(trial: TrialRestore) -> Iterator[Observation]:
    """The newest base backup unpacks, its server starts, and every row in it can be read."""
    label = trial.base.manifest.label
    with _folder(trial) as folder:
        server = LocalServer(folder / "data", trial.tools, folder / "postgresql.log")
        try:
            unpack(trial.base.backup, server.data, trial.tools)
            with _started(server, trial) as connection:
                yield Observation(label, None)
                for table in trial.base.facts["tables"]:
                    yield _reading(connection, table["schema"], table["name"])
        except PipelineError as error:
            yield Observation(label, str(error))


@contextmanager
def _folder(trial: TrialRestore) -> Iterator[Path]:
    """A folder for the server's owner, where the volume has room for what will be restored."""
    needed, free = trial.base.facts["database_bytes"], shutil.disk_usage(trial.path).free
    if free < 2 * needed:
        raise NotRun(f"[scratch] path: {2 * needed:,} bytes are needed, {free:,} are free")
    with tempfile.TemporaryDirectory(prefix="trial-", dir=trial.path) as name:
        trial.tools.own(Path(name))
        yield Path(name)


@contextmanager
def _started(server: LocalServer, trial: TrialRestore) -> Iterator[psycopg.Connection[Any]]:
    """Start it in private, and connect to the database that was backed up."""
    user, dbname = trial.config.postgres.user, trial.base.facts["database"]
    with private_server(server, user=user, port=PORT, settings=SETTINGS, dbname=dbname) as connect:
        wait_until(f"start of {server.data}", lambda: _starting(server, connect), within=START)
        with connect() as connection:
            yield connection


def _starting(server: LocalServer, connect: Connect) -> str | None:
    if server.pid() is None:
        raise ServerError(f"the server gave up:\n{server.told()}")
    try:
        connect().close()
    except psycopg.OperationalError as error:
        return str(error).strip()
    return None


def _reading(connection: psycopg.Connection[Any], schema: str, name: str) -> Observation:
    """Read every column of every row; what is stored out of line is read only as text."""
    query = sql.SQL("select count(t::text) from only {} t").format(sql.Identifier(schema, name))
    try:
        connection.execute(query)
    except psycopg.Error as error:
        return Observation(f"{schema}.{name}", str(error).strip())
    return Observation(f"{schema}.{name}", None)


@base_backup_starts.detects
def wal_of_the_backup_zeroed(scratch: Scratch[TrialRestore], _rng: Random) -> Damage:
    """The WAL inside of a base backup is in no list of files: only replaying it tells."""
    label = scratch.copy.base.manifest.label
    backups.repack(scratch, lambda name, content: bytes(len(content)) if _is_wal(name) else content)
    return Damage(label, "its own WAL is zero, and all digests agree")


@base_backup_starts.detects
def wal_of_the_backup_left_out(scratch: Scratch[TrialRestore], _rng: Random) -> Damage:
    """A copy that skipped pg_wal, because the archive has it all."""
    label = scratch.copy.base.manifest.label
    backups.repack(scratch, lambda name, content: None if _is_wal(name) else content)
    return Damage(label, "its own WAL was left out, and all digests agree")


@base_backup_starts.detects
def object_damaged(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """Bit rot in storage."""
    base = scratch.copy.base.manifest
    return Damage(base.label, files.flip_bit(scratch, base.objects[0].key, rng).what)


@base_backup_starts.detects
def table_not_in_the_backup(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """The backup of another database than the one that was meant."""
    name = f"archive_{rng.randrange(1000)}"
    tables = scratch.copy.base.facts["tables"]
    missing = {**tables[0], "schema": "shop", "name": name}
    backups.change_fact(scratch, "tables", [*tables, missing])
    return Damage(f"shop.{name}", "the source had it, the backup has not")


def _is_wal(name: str) -> bool:
    return name.removeprefix("./").startswith("pg_wal/0")
