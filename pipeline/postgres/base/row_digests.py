"""Rows and a digest of every table at one LSN: what a restored base backup is held against.

A digest that is taken beside a base backup is of another moment than its files. A logical slot
ties both together: it is made with a snapshot that saw every commit before an LSN, and none
behind it (PostgreSQL manual, 47.2.5). Replay that stops right before that LSN shows the same rows.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Self

import psycopg
from psycopg import IsolationLevel, sql
from psycopg.rows import dict_row

from pipeline.config import PostgresConfig
from pipeline.errors import BackupError, RestoreError
from pipeline.postgres.base import large_objects
from pipeline.postgres.base.digests import other_rows, prepare, table_digests
from pipeline.postgres.replay.targets import Target, TargetKind
from pipeline.postgres.server.prepared import prepared_transactions
from pipeline.postgres.server.session import connect
from pipeline.postgres.wal.lsn import Lsn

FACT = "digests"
PATIENCE = timedelta(minutes=5)
LEFT_BEHIND = timedelta(minutes=1)  # a coordinator that lives needs moments

# a restore empties what is unlogged; rows of an extension's tables are its own affair
_TABLES = """
    SELECT c.oid::bigint AS oid, c.oid::regclass::text AS name, c.relfilenode::bigint AS node,
           CASE WHEN c.relpersistence = 'u' THEN 'unlogged'
                WHEN EXISTS (SELECT FROM pg_depend e WHERE e.deptype = 'e' AND e.objid = c.oid
                                AND e.classid = 'pg_class'::regclass) THEN 'of an extension'
           END AS left_out
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND c.relpersistence <> 't'
       AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
     ORDER BY 1
"""
_ELSEWHERE = """
    SELECT 'database ' || datname FROM pg_database
     WHERE datname <> current_database() AND NOT datistemplate
    UNION ALL
    SELECT c.oid::regclass || ': a materialized view'
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'm' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
     ORDER BY 1
"""
_COLUMNS = """
    SELECT format('%%I.%%I', n.nspname, c.relname), array_agg(
               format('%%s %%s %%s', attnum, attname, atttypid) ORDER BY attnum)
      FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE attrelid = ANY (%s) AND attnum > 0 AND NOT attisdropped GROUP BY 1
"""


_OPEN = """
    SELECT format('transaction of %s in database %s, process %s, open since %s',
                  usename, datname, pid, xact_start)
      FROM pg_stat_activity
     WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() ORDER BY xact_start
"""


@dataclass(frozen=True)
class RowDigests:
    """Schema, name, rows and digest of tables in `database`, where replay stands at `lsn`."""

    database: str
    lsn: str
    tables: tuple[dict[str, Any], ...]
    left_out: tuple[str, ...]
    large_objects: dict[str, Any] | None = None

    @property
    def target(self) -> Target:
        """Where to stop a replay that shall show these rows."""
        return Target(TargetKind.LSN, self.lsn, inclusive=False)

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(table["rows"] for table in self.tables)

    def facts(self) -> dict[str, Any]:
        """JSON-able, for a manifest; `of` reads it back."""
        return asdict(self)

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Self | None:
        """The digests of a base backup by its manifest's facts, None where it has none."""
        if (known := facts.get(FACT)) is None:
            return None
        return cls(**known | {name: tuple(known[name]) for name in ("tables", "left_out")})

    def compared(self, connection: psycopg.Connection[Any]) -> Iterator[tuple[str, str | None]]:
        """Each table with what is wrong with it in a server that stands there, or None.

        Raises RestoreError when the connection is to another database.
        """
        if (name := connection.info.dbname) != self.database:
            raise RestoreError(f"the digests are of database {self.database}, found {name}")
        with connection.transaction():
            prepare(connection)
            tables = connection.cursor(row_factory=dict_row).execute(_TABLES).fetchall()
            # a standby refuses to read what is unlogged
            oids = [table["oid"] for table in tables if table["left_out"] is None]
            found = {(t["schema"], t["name"]): t for t in table_digests(connection, oids)}
            held = large_objects.read(connection)
        for expected in self.tables:
            restored = found.get((expected["schema"], expected["name"]))
            yield f"{expected['schema']}.{expected['name']}", other_rows(expected, restored)
        if (objects := self.large_objects) is not None:
            told = large_objects.other(objects, held)
            if objects["count"] or told:
                yield "large objects", told


def take(
    postgres: PostgresConfig, within: timedelta, progress: Callable[[str], None] = lambda _: None
) -> RowDigests:
    """Digest every permanent table of the configured database, each row as of one LSN.

    Raises BackupError when a transaction stays open for longer than `within`, which neither the
    slot nor the locks can pass, or is prepared and older than LEFT_BEHIND: its session is gone, and
    nothing ends it by itself; when no slot is free, or a table is rewritten or altered meanwhile.
    """
    try:
        _refuse_left_behind(postgres, progress)
        with snapshot(postgres, within) as (connection, lsn):
            wait = f"{round(within.total_seconds())}s"
            connection.execute("SELECT set_config('lock_timeout', %s, true)", [wait])
            return digested(connection, lsn)
    except psycopg.errors.LockNotAvailable as error:
        told = f"a transaction was open for longer than {within}"
        held = "; ".join(_held_up_by(postgres)) or "none that this role can see now"
        raise BackupError(f"no digests of {postgres.dbname}: {told}: {held}") from error
    except psycopg.Error as error:
        raise BackupError(f"no digests of {postgres.dbname}: {str(error).strip()}") from error


def _refuse_left_behind(postgres: PostgresConfig, progress: Callable[[str], None]) -> None:
    """Say at once what the slot will wait for, and do not wait for what nobody will end."""
    with connect(postgres) as connection:
        waiting = prepared_transactions(connection)
    if left := [str(one) for one in waiting if one.age > LEFT_BEHIND]:
        raise BackupError(
            f"no digests of {postgres.dbname} while there is {'; '.join(left)}: "
            "COMMIT PREPARED or ROLLBACK PREPARED it"
        )
    for one in waiting:
        progress(f"digests wait for {one}")


def _held_up_by(postgres: PostgresConfig) -> list[str]:
    """Name what is open in any database of the server, the oldest first."""
    with connect(postgres) as connection:
        open_ones = connection.execute(_OPEN).fetchall()
        return [*map(str, prepared_transactions(connection)), *(row[0] for row in open_ones)]


@contextmanager
def snapshot(
    postgres: PostgresConfig, within: timedelta
) -> Iterator[tuple[psycopg.Connection[Any], Lsn]]:
    """A transaction that sees what was committed before an LSN; the slot is gone by then."""
    # the slot waits for every open transaction to end: that is a wait for a lock
    wait = {"lock_timeout": f"{round(within.total_seconds())}s"}
    create = sql.SQL("CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export')")
    slot = sql.Identifier(f"pipeline_digests_{secrets.token_hex(4)}")
    with connect(postgres) as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        with connect(postgres, autocommit=True, settings=wait, replication="database") as walsender:
            row = walsender.execute(create.format(slot)).fetchone()
            if row is None:
                raise BackupError("the server made a slot and did not say where it begins")
            _, lsn, exported, _ = row
            connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(exported)))
        yield connection, Lsn.parse(lsn)


def digested(connection: psycopg.Connection[Any], lsn: Lsn) -> RowDigests:
    """Digest what this transaction sees, which is what was committed before the LSN."""
    prepare(connection)
    tables = connection.cursor(row_factory=dict_row).execute(_TABLES).fetchall()
    kept = [table for table in tables if table["left_out"] is None]
    for table in kept:
        _hold(connection, table)
    _refuse_altered(connection, [table["oid"] for table in kept])
    elsewhere = [row[0] for row in connection.execute(_ELSEWHERE).fetchall()]
    left_out = (f"{table['name']}: {table['left_out']}" for table in tables if table["left_out"])
    return RowDigests(
        database=connection.info.dbname,
        lsn=str(lsn),
        tables=tuple(table_digests(connection, [table["oid"] for table in kept])),
        left_out=(*elsewhere, *left_out),
        large_objects=large_objects.read(connection),
    )


def _hold(connection: psycopg.Connection[Any], table: dict[str, Any]) -> None:
    """Lock a table against being rewritten: TRUNCATE and its like are not in any snapshot."""
    quoted = sql.SQL(table["name"])
    connection.execute(sql.SQL("LOCK TABLE ONLY {} IN ACCESS SHARE MODE").format(quoted))
    row = connection.execute("SELECT pg_relation_filenode(%s)", [table["oid"]]).fetchone()
    if row is None or row[0] != table["node"]:
        raise BackupError(f"{table['name']} was rewritten before its digest was taken: try again")


def _refuse_altered(connection: psycopg.Connection[Any], oids: list[int]) -> None:
    """Rows are read with the columns of now, which may be others than those of the snapshot."""
    with psycopg.connect(connection.info.dsn, password=connection.info.password) as outside:
        now: dict[str, list[str]] = dict(outside.execute(_COLUMNS, [oids]).fetchall())
    for name, columns in connection.execute(_COLUMNS, [oids]).fetchall():
        if now.get(name) != columns:
            raise BackupError(f"{name} was altered before its digest was taken: try again")
