"""PostgreSQL's own examination of B-trees and tables: what is damaged, and what could not be read.

Damage is what amcheck reports as damage, or a file that is not there. Any other error is one of
the examination: a function of an index that does not run here, a right or a lock that is missing.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import Connection, errors, sql

from pipeline.errors import RestoreError

_USERS = """
    n.nspname <> 'information_schema' AND n.nspname !~ '^pg_(temp|toast_temp)'
    AND (%(catalogues)s OR n.nspname !~ '^pg_')
"""
_INDEXES = f"""
    SELECT n.nspname, c.relname, c.oid::bigint, i.indisunique
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_am a ON a.oid = c.relam AND a.amname = 'btree'
     WHERE c.relkind = 'i' AND c.relpersistence = 'p' AND i.indisvalid AND i.indisready AND {_USERS}
       AND (%(only)s::oid[] IS NULL OR i.indrelid = ANY (%(only)s)) ORDER BY 1, 2
"""
_HEAPS = f"""
    SELECT n.nspname, c.relname, c.oid::bigint, false
      FROM pg_class c JOIN pg_am a ON a.oid = c.relam AND a.amname = 'heap'
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND {_USERS}
       AND (%(only)s::oid[] IS NULL OR c.oid = ANY (%(only)s)) ORDER BY 1, 2
"""
_FUNCTIONS = """
    SELECT coalesce(max(pronargs) FILTER (WHERE proname = 'bt_index_check'), 0),
           count(*) FILTER (WHERE proname = 'verify_heapam')
      FROM pg_extension e JOIN pg_proc p ON p.pronamespace = e.extnamespace
     WHERE extname = 'amcheck'
"""
# guards against DDL are event triggers; both are for superusers, the second came with 17
_UNGUARDED = (
    "SELECT set_config('session_replication_role', 'replica', true)",
    "SELECT set_config(name, 'off', true) FROM pg_settings WHERE name = 'event_triggers'",
)
_DAMAGE = (errors.DataCorrupted, errors.IndexCorrupted, errors.UndefinedFile, errors.IoError)
_HEAPALLINDEXED, _CHECKUNIQUE = 2, 3  # arguments of bt_index_check, by its version
LIMITS = "indexes other than B-trees, system catalogues, what TOAST holds beyond its presence"
"""What amcheck, as it is used here, never reads."""


class NotAtHand(Exception):
    """The extension cannot be used here; the message says why."""


@dataclass(frozen=True)
class Finding:
    """A relation with what is damaged in it, or why it could not be examined, or neither."""

    kind: str
    schema: str
    name: str
    damage: tuple[str, ...] = ()
    unread: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.schema}.{self.name}"


def amcheck(
    connection: Connection[Any], only: Sequence[int] | None = None
) -> tuple[list[str], list[str], tuple[int, int]]:
    """Examine B-trees against their tables, and tables themselves; `only` takes oids of tables.

    Returns what is damaged, what could not be examined, and how many of both were sound. Raises
    RestoreError where reading ended the connection.
    """
    damaged, unread, sound = list[str](), dict[str, list[str]](), {"index": 0, "table": 0}
    try:
        for one in findings(connection, only):
            damaged += [f"{one}: {told}" for told in one.damage]
            if one.unread is not None:
                unread.setdefault(one.unread, []).append(str(one))
            elif not one.damage:
                sound[one.kind] += 1
            if connection.closed:
                raise RestoreError("; ".join(damaged))
    except NotAtHand as error:
        return [], [f"structure: amcheck is not at hand: {error}"], (0, 0)
    return damaged, [*_grouped(unread), LIMITS], (sound["index"], sound["table"])


def _grouped(unread: dict[str, list[str]]) -> Iterator[str]:
    """Tell a reason once: it may be the same for a thousand relations."""
    for reason, names in unread.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        yield f"structure of {', '.join(names[:3])}{more}: {reason}"


def findings(
    connection: Connection[Any],
    only: Sequence[int] | None = None,
    *,
    kinds: Sequence[str] = ("index", "table"),
    catalogues: bool = False,
) -> Iterator[Finding]:
    """Examine each relation of these kinds; it ends where the connection is lost to one.

    The extension is made in a transaction that is rolled back: nothing of it stays. The search
    path stays as it is set for the database: functions of indexes may need it. Raises NotAtHand.
    """
    asked, lost = {"only": only, "catalogues": catalogues}, False
    try:
        with connection.transaction(force_rollback=True):
            where, arguments, heaps = _at_hand(connection)
            for kind in kinds:
                query, lacking = _query(kind, where, arguments, heaps)
                relations = connection.execute(_INDEXES if kind == "index" else _HEAPS, asked)
                for schema, name, oid, unique in relations.fetchall():
                    known = {"oid": oid, "unique": unique}
                    told = ((), lacking) if lacking else _examined(connection, query, known)
                    lost = connection.closed
                    yield Finding(kind, schema, name, *told)
                    if lost:
                        return
    except psycopg.OperationalError:
        if not lost:  # there is nothing to roll back
            raise


def _query(
    kind: str, where: sql.Identifier, arguments: int, heaps: int
) -> tuple[sql.Composed, str | None]:
    """Spell the examination of a relation, and say what the installed version lacks for it."""
    lacking = "the amcheck that is installed is of a version that cannot do it"
    if kind == "table":
        query: LiteralString = (
            "SELECT format('block %%s, item %%s: %%s', blkno, offnum, msg) FROM"
            " {}.verify_heapam(%(oid)s::oid::regclass, check_toast => true) LIMIT 3"
        )
        return sql.SQL(query).format(where), None if heaps else lacking
    unique = ", %(unique)s" if arguments >= _CHECKUNIQUE else ""
    query = "SELECT {}.bt_index_check(%(oid)s::oid::regclass, true" + unique + ")"
    return sql.SQL(query).format(where), None if arguments >= _HEAPALLINDEXED else lacking


def _examined(
    connection: Connection[Any], query: sql.Composed, asked: dict[str, Any]
) -> tuple[tuple[str, ...], str | None]:
    try:
        # rolled back, so that ten thousand relations need no more locks than one
        with connection.transaction(force_rollback=True):
            rows = connection.execute(query, asked).fetchall()
    except psycopg.Error as error:
        told = _first_line(error)
        lost = connection.closed  # as by a crash
        return ((told,), None) if lost or isinstance(error, _DAMAGE) else ((), told)
    return tuple(row[0] for row in rows if row[0]), None


def _at_hand(connection: Connection[Any]) -> tuple[sql.Identifier, int, int]:
    """Make the extension, or bring the one that is there up to date; say what it can do."""
    for statement in _UNGUARDED:
        with suppress(errors.InsufficientPrivilege), connection.transaction():
            connection.execute(statement)
    found = _schema(connection)
    try:
        with connection.transaction():
            if found is None:
                connection.execute("CREATE SCHEMA pipeline_amcheck")
                connection.execute("CREATE EXTENSION amcheck WITH SCHEMA pipeline_amcheck")
            else:
                connection.execute("ALTER EXTENSION amcheck UPDATE")  # pg_upgrade leaves it
    except psycopg.Error as error:
        if found is None or connection.closed:
            raise NotAtHand(_first_line(error)) from error
    arguments, heaps = connection.execute(_FUNCTIONS).fetchone() or (0, 0)
    return sql.Identifier(found or "pipeline_amcheck"), arguments, heaps


def _schema(connection: Connection[Any]) -> str | None:
    row = connection.execute(
        "SELECT nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
        " WHERE extname = 'amcheck'"
    ).fetchone()
    return str(row[0]) if row else None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
