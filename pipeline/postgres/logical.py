"""A logical backup: pg_dump in one exported snapshot, with what a restore must bring back.

The object is pg_dump's own custom format, so that pg_restore alone can read it when all else
is gone. Roles and tablespaces are dumped beside a whole database, without the snapshot: they are
the server's, and pg_dumpall knows no snapshot.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import IsolationLevel
from psycopg.rows import dict_row

from pipeline.config import PipelineConfig, PostgresConfig
from pipeline.errors import BackupError, ConfigError, RestoreError, ToolError
from pipeline.postgres.base_backup import MADE_BY
from pipeline.postgres.digests import differences, expected_objects, prepare, table_digests
from pipeline.postgres.tools import Tools, password_environment
from pipeline.repository import BackupSet, Manifest, Repository
from pipeline.store import HashedStream

KIND = "logical"
DUMP = "database.dump"
GLOBALS = "globals.sql"

_SERVER = """
    SELECT pg_export_snapshot() AS exported, pg_current_snapshot()::text AS snapshot,
           pg_current_wal_insert_lsn()::text AS lsn, current_database() AS database,
           current_setting('server_version') AS server_version,
           current_setting('server_version_num')::int AS server_version_num,
           pg_encoding_to_char(encoding) AS encoding, datcollate AS collate,
           (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier
      FROM pg_database WHERE datname = current_database()
"""
# a partitioned table holds no rows itself: its partitions come along
_WITH_CHILDREN = """
    WITH RECURSIVE family (oid) AS (
        SELECT to_regclass(%s)::oid
        UNION SELECT i.inhrelid FROM family f JOIN pg_inherits i ON i.inhparent = f.oid)
    SELECT c.oid::bigint, format('"%%s"."%%s"', replace(n.nspname, '"', '""'),
                                 replace(c.relname, '"', '""'))
      FROM family f JOIN pg_class c ON c.oid = f.oid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p')
"""


def take(
    config: PipelineConfig,
    repository: Repository,
    progress: Callable[[str], None] = lambda _: None,
    *,
    tables: Sequence[str] = (),
    schema_only: bool = False,
) -> BackupSet:
    """Dump the database, or `tables` of it, and commit it as a backup set.

    Object list, row counts, digests and dump come from one snapshot, so that they agree while
    clients go on writing. `schema_only` leaves out the rows, and so the digests.

    Raises ConfigError for a table that is not there, BackupError when a program fails: no set is
    committed then.
    """
    started = datetime.now(UTC)
    label = repository.new_label(KIND, started)
    prefix = f"sets/{KIND}/{label}/"
    with _snapshot(config.postgres) as (connection, server):
        chosen = _chosen(connection, tables)
        only = list(chosen) if tables else None
        prepare(connection)
        facts: dict[str, Any] = {
            **{name: value for name, value in server.items() if name != "exported"},
            "scope": _scope(chosen, schema_only=schema_only),
            "objects": expected_objects(connection, only),
            "tables": [] if schema_only else table_digests(connection, only),
        }
        progress(f"{label}: dumping {len(facts['objects'])} objects of {server['database']}")
        options = [f"--snapshot={server['exported']}", "--format=custom", "--lock-wait-timeout=60s"]
        options += [f"--table={name}" for name in chosen.values()]
        options += ["--schema-only"] if schema_only else []
        dump = _stream(config.postgres, "pg_dump", *options, f"--dbname={server['database']}")
        stored = [repository.store.put(prefix + DUMP, dump)]
    if not tables:
        roles = _stream(config.postgres, "pg_dumpall", "--globals-only")
        stored.append(repository.store.put(prefix + GLOBALS, roles))
    manifest = Manifest(
        kind=KIND,
        label=label,
        started=started,
        finished=datetime.now(UTC),
        made_by=MADE_BY,
        facts=facts,
        objects=tuple(stored),
    )
    progress(f"{label}: {sum(entry.size for entry in stored):,} bytes stored")
    return repository.commit(manifest)


def restore(backup: BackupSet, into: PostgresConfig) -> None:
    """Restore into an empty database, in one transaction, and prove objects, rows and digests.

    The dump is hashed before the server sees any of it. Roles that own something must be there:
    feed globals.sql to psql first.

    Raises RestoreError when the object is damaged, the database is not empty, or what came back
    is not what the backup held.
    """
    if backup.kind != KIND:
        raise RestoreError(f"{backup.label} is a backup of kind {backup.kind}, not {KIND}")
    tools = Tools.of(into)
    with psycopg.connect(**into.conninfo()) as connection:
        _refuse_filled(connection, into)
    with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
        dump = Path(folder) / DUMP
        _copy_proven(backup, dump)
        tools.own(Path(folder))
        tools.run(
            "pg_restore",
            *("--exit-on-error", "--single-transaction", *_address(into)),
            *(f"--dbname={into.dbname}", dump),
            env=password_environment(into),
        )
    with psycopg.connect(**into.conninfo()) as connection:
        if found := list(differences(connection, backup.manifest.facts)):
            raise RestoreError(f"{backup.label}: restored, but not the same:\n" + "\n".join(found))


@contextmanager
def _snapshot(
    postgres: PostgresConfig,
) -> Iterator[tuple[psycopg.Connection[Any], dict[str, Any]]]:
    """Hold one snapshot open, and say what pg_dump needs to share it."""
    with psycopg.connect(**postgres.conninfo()) as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        server = connection.cursor(row_factory=dict_row).execute(_SERVER).fetchone()
        if server is None:
            raise BackupError("the server did not say which database this is")
        yield connection, server


def _chosen(connection: psycopg.Connection[Any], tables: Sequence[str]) -> dict[int, str]:
    """Tables by oid, each with its children; both parts quoted, or pg_dump reads patterns."""
    chosen: dict[int, str] = {}
    for table in tables:
        found = connection.execute(_WITH_CHILDREN, [table]).fetchall()
        if not found:
            raise ConfigError(f"--table {table}: there is no such table in this database")
        chosen.update(found)
    return chosen


def _scope(chosen: dict[int, str], *, schema_only: bool) -> str:
    return ("tables" if chosen else "database") + (", schema only" if schema_only else "")


def _address(postgres: PostgresConfig) -> tuple[str, ...]:
    address = f"--host={postgres.host}", f"--port={postgres.port}"
    return (*address, f"--username={postgres.user}", "--no-password")


def _stream(postgres: PostgresConfig, program: str, *options: str) -> Iterator[bytes]:
    """Blocks of a program's output; ends with an error unless the program ended well."""
    tools, env = Tools.of(postgres), password_environment(postgres)
    with tempfile.TemporaryFile() as messages:
        try:
            yield from tools.stream(
                program, *_address(postgres), *options, messages=messages, env=env
            )
        except ToolError as error:
            raise BackupError(f"no backup was taken: {error}") from error


def _refuse_filled(connection: psycopg.Connection[Any], into: PostgresConfig) -> None:
    with connection.transaction():
        prepare(connection)
        # a dump of tables does not bring their schemas: those may be there
        objects = expected_objects(connection)
        held = [name for name in objects if not name.startswith("schema ")]
    if held:
        raise RestoreError(
            f"database {into.dbname} is not empty: a restore never writes into existing data; "
            f"found {len(held)} objects, the first is {held[0]}"
        )


def _copy_proven(backup: BackupSet, into: Path) -> None:
    (entry,) = (entry for entry in backup.manifest.objects if entry.key.endswith(DUMP))
    with backup.store.open(entry.key) as stream, into.open("wb") as copy:
        hashing = HashedStream(stream)
        shutil.copyfileobj(hashing, copy, 1 << 20)
        damage = hashing.damage(entry)
    if damage:
        raise RestoreError(damage)
