"""A logical backup: pg_dump in one exported snapshot, with what a restore must bring back.

The object is pg_dump's own custom format, so that pg_restore alone can read it when all else
is gone. Roles and tablespaces are dumped beside a whole database, without the snapshot: they are
the server's, and pg_dumpall knows no snapshot.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import IsolationLevel
from psycopg.rows import dict_row

from pipeline.config import PipelineConfig, PostgresConfig
from pipeline.errors import BackupError, ConfigError, RestoreError, ToolError
from pipeline.postgres.base import large_objects
from pipeline.postgres.base.digests import expected_objects, prepare, table_digests
from pipeline.postgres.base.large_objects import FACT
from pipeline.postgres.logical.catalogue import catalogue
from pipeline.postgres.logical.loading import load
from pipeline.postgres.logical.one_schema import facts_of
from pipeline.postgres.logical.proof import Proof, prove, unsound
from pipeline.postgres.logical.relations import family
from pipeline.postgres.server.session import ENCODING, connect, environment
from pipeline.postgres.server.tools import Tools, address
from pipeline.repository import kinds
from pipeline.repository.sets import BackupSet, Draft, Repository, total_size
from pipeline.repository.store import HashedStream, StoredObject

KIND = kinds.LOGICAL.name
WHOLE = "database"
"""The scope of a backup of everything."""
DUMP = "database.dump"
GLOBALS = "globals.sql"

_SERVER = """
    SELECT pg_export_snapshot() AS exported, pg_current_snapshot()::text AS snapshot,
           pg_current_wal_insert_lsn()::text AS lsn, current_database() AS database,
           current_setting('server_version') AS server_version,
           current_setting('server_version_num')::int AS server_version_num,
           pg_encoding_to_char(encoding) AS encoding, datcollate AS collate,
           datctype AS ctype, to_jsonb(d) ->> 'datlocprovider' AS provider,
           coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale') AS locale,
           to_jsonb(d) ->> 'daticurules' AS icu_rules,
           (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier
      FROM pg_database d WHERE datname = current_database()
"""
_OF_SCHEMA = """
    SELECT n.oid::bigint, c.oid::bigint FROM pg_namespace n
      LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
     WHERE n.nspname = %s
"""
NEEDS = (
    "a backup reads every table, and the hashes of passwords: GRANT pg_read_all_data, and "
    "BYPASSRLS where tables have policies; --no-role-passwords leaves the hashes out"
)


def take(
    config: PipelineConfig,
    repository: Repository,
    progress: Callable[[str], None] = lambda _: None,
    *,
    tables: Sequence[str] = (),
    schemas: Sequence[str] = (),
    schema_only: bool = False,
    role_passwords: bool = True,
) -> BackupSet:
    """Dump the database, or `tables` or `schemas` of it, and commit it as a backup set.

    Object list, row counts, digests and dump come from one snapshot, so that they agree while
    clients go on writing. `schema_only` leaves out the rows, and so the digests. Hashes of
    passwords are kept unless told otherwise: a base backup in the same repository has them too.

    Raises ConfigError for a table that is not there, BackupError when a program fails or may not
    read everything: no set is committed then.
    """
    with repository.begin(KIND) as draft:
        facts, stored = _dumped(
            config.postgres, draft, progress, tables, schemas, schema_only=schema_only
        )
        objects = [stored]
        if not (tables or schemas):
            wanted = ["--globals-only", *([] if role_passwords else ["--no-role-passwords"])]
            wanted += [f"--encoding={ENCODING}", f"--database={config.postgres.dbname}"]
            with _private():
                objects.append(draft.put(GLOBALS, _stream(config.postgres, "pg_dumpall", *wanted)))
        progress(f"{draft.label}: {total_size(objects):,} bytes stored")
        return draft.commit(facts, objects)


def _dumped(
    postgres: PostgresConfig,
    draft: Draft,
    progress: Callable[[str], None],
    tables: Sequence[str],
    schemas: Sequence[str],
    *,
    schema_only: bool,
) -> tuple[dict[str, Any], StoredObject]:
    """Store the dump; answer what was in its snapshot."""
    try:
        with _snapshot(postgres) as (connection, server):
            chosen, options = _chosen(connection, tables, schemas)
            scope = _scope(tables, schemas, schema_only=schema_only)
            prepare(connection)
            facts: dict[str, Any] = {
                **{name: value for name, value in server.items() if name != "exported"},
                "scope": scope,
                "objects": expected_objects(connection, chosen),
                "tables": [] if schema_only else table_digests(connection, chosen),
                FACT: large_objects.read(connection, digest=scope == WHOLE),
                # not sound at the source either: a restore is not to be blamed for it
                "unsound": unsound(connection, chosen),
                **({} if tables or schemas else {"catalogue": catalogue(connection)}),
            }
            for told in large_objects.left_out(facts):
                progress(f"{draft.label}: NOT in it: {told}")
            told = f"dumping {len(facts['objects'])} objects of {server['database']}"
            progress(f"{draft.label}: {told}")
            options += [f"--snapshot={server['exported']}", "--format=custom"]
            # its own: into another one not every letter can be converted
            options += [f"--encoding={server['encoding']}", "--lock-wait-timeout=60s"]
            options += ["--schema-only"] if schema_only else []
            dump = _stream(postgres, "pg_dump", *options, f"--dbname={server['database']}")
            return facts, draft.put(DUMP, dump)
    except psycopg.errors.InsufficientPrivilege as error:
        who = f"postgres.user {postgres.user!r}"
        raise BackupError(f"no backup was taken: {who}: {error}; {NEEDS}") from error


def restore(
    backup: BackupSet, into: PostgresConfig, *, rows: bool = True, schema: str | None = None
) -> Proof:
    """Restore into an empty database, in one transaction, and prove what came back.

    More large objects than one transaction can lock come after it.
    The dump is hashed before the server sees any of it. Roles that own something must be there:
    restore the globals first. Without `rows` only definitions come back; with `schema` what is in
    that schema, which must not need another one.

    Raises RestoreError when the object is damaged, the database is not empty, pg_restore has
    anything to say, or what came back is not what the backup held.
    """
    if backup.kind != KIND:
        raise RestoreError(f"{backup.label} is a backup of kind {backup.kind}, not {KIND}")
    facts = backup.manifest.facts
    facts = facts if schema is None else facts_of(facts, schema)
    with connect(into) as connection:
        _refuse_filled(connection, into)
        # an event trigger of the dump is there before its materialized views are refreshed
        superuser = connection.info.parameter_status("is_superuser") == "on"
    with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
        dump = Path(folder) / DUMP
        copy_proven(backup, dump)
        Tools.of(into).own(Path(folder))
        load(backup, into, dump, schema=schema, rows=rows, superuser=superuser)
    with connect(into, autocommit=True) as connection:
        known = facts.get("unsound", [])
        try:
            without = {"tables": [], "scope": _scope((), (), schema_only=True)}
            return prove(connection, facts if rows else facts | without, known=known)
        except RestoreError as error:
            raise RestoreError(f"{backup.label}: {error}") from error


@contextmanager
def _private() -> Iterator[None]:
    """Let nobody else read the files that are made here: hashes of passwords are in them."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def _snapshot(
    postgres: PostgresConfig,
) -> Iterator[tuple[psycopg.Connection[Any], dict[str, Any]]]:
    """Hold one snapshot open, and say what pg_dump needs to share it."""
    with connect(postgres) as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        server = connection.cursor(row_factory=dict_row).execute(_SERVER).fetchone()
        if server is None:
            raise BackupError("the server did not say which database this is")
        yield connection, server


def _chosen(
    connection: psycopg.Connection[Any], tables: Sequence[str], schemas: Sequence[str]
) -> tuple[list[int] | None, list[str]]:
    """What was asked for by oid, None for all of it; and pg_dump's options for it."""
    if tables and schemas:
        raise ConfigError("--table and --schema: choose one of them, pg_dump would join both")
    relations = [one for table in tables for one in family(connection, table)]
    oids, options = [one.oid for one in relations], [f"--table={one.quoted}" for one in relations]
    for schema in schemas:
        found = connection.execute(_OF_SCHEMA, [schema]).fetchall()
        if not found:
            raise ConfigError(f"--schema {schema}: there is no such schema in this database")
        oids += [oid for row in found for oid in row if oid is not None]
        options.append('--schema="' + schema.replace('"', '""') + '"')
    return oids or None, options


def _scope(tables: Sequence[str], schemas: Sequence[str], *, schema_only: bool) -> str:
    what = "tables" if tables else "schemas" if schemas else WHOLE
    return what + (", schema only" if schema_only else "")


def _stream(postgres: PostgresConfig, program: str, *options: str) -> Iterator[bytes]:
    """Blocks of a program's output; ends with an error unless the program ended well."""
    tools, env = Tools.of(postgres), environment(postgres)
    with tempfile.TemporaryFile() as messages:
        try:
            yield from tools.stream(
                program, *address(postgres), *options, messages=messages, env=env
            )
        except ToolError as error:
            denied = f"; {NEEDS}" if "permission denied" in error.output else ""
            raise BackupError(f"no backup was taken: {error}{denied}") from error


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


def copy_proven(backup: BackupSet, into: Path, name: str = DUMP) -> None:
    """Copy an object of a set to a file, and compare it with its digest; RestoreError otherwise."""
    found = [entry for entry in backup.manifest.objects if entry.key.endswith(f"/{name}")]
    if not found:
        raise RestoreError(
            f"{backup.label} holds no {name}: it is of {backup.manifest.facts['scope']}"
        )
    with backup.store.open(found[0].key) as stream, into.open("wb") as copy:
        hashing = HashedStream(stream)
        shutil.copyfileobj(hashing, copy, 1 << 20)
        damage = hashing.damage(found[0])
    if damage:
        raise RestoreError(damage)
