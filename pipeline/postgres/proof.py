"""What every restore ends with: objects, rows, digests, sequences, constraints, structure.

What could not be examined is said as such, and never counted as sound.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import psycopg
from psycopg import Connection, sql

from pipeline.errors import RestoreError
from pipeline.postgres.catalogue import unlike
from pipeline.postgres.digests import differences, prepare
from pipeline.postgres.relations import owned_sequences

_INDEXES = """
    SELECT c.oid::regclass::text, i.indisunique
      FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
      JOIN pg_am a ON a.oid = c.relam AND a.amname = 'btree'
     WHERE c.relkind = 'i' AND c.relpersistence = 'p' AND i.indisvalid AND i.indisready
       AND c.relnamespace IN (SELECT oid FROM pg_namespace
                               WHERE nspname <> 'information_schema' AND nspname !~ '^pg_')
       AND (%(only)s::oid[] IS NULL OR i.indrelid = ANY (%(only)s)) ORDER BY 1
"""
_HEAPS = """
    SELECT c.oid::regclass::text FROM pg_class c JOIN pg_am a ON a.oid = c.relam
     WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND a.amname = 'heap'
       AND c.relnamespace IN (SELECT oid FROM pg_namespace
                               WHERE nspname <> 'information_schema' AND nspname !~ '^pg_')
       AND (%(only)s::oid[] IS NULL OR c.oid = ANY (%(only)s)) ORDER BY 1
"""
_UNSOUND = """
    SELECT format('constraint %%s on %%s is not validated', conname, conrelid::regclass)
      FROM pg_constraint
     WHERE NOT convalidated AND (%(only)s::oid[] IS NULL OR conrelid = ANY (%(only)s))
    UNION ALL
    SELECT format('index %%s is not valid', indexrelid::regclass) FROM pg_index
     WHERE NOT indisvalid AND (%(only)s::oid[] IS NULL OR indrelid = ANY (%(only)s))
     ORDER BY 1
"""
# a damaged index is told by an error, and so is a time-out: there must be none
_UNHURRIED = """
    SELECT set_config(name, '0', true)
      FROM unnest(ARRAY['statement_timeout', 'lock_timeout', 'transaction_timeout',
                        'idle_in_transaction_session_timeout']) AS name
     WHERE current_setting(name, true) IS NOT NULL
"""
_NOT_AT_HAND = (
    psycopg.errors.UndefinedFile,
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.DuplicateSchema,
)
LIMITS = "indexes other than B-trees, system catalogues, what TOAST holds beyond its presence"
"""What amcheck, as it is used here, never reads."""


@dataclass(frozen=True)
class Proof:
    """What was examined, and what could not be."""

    objects: int
    tables: int
    rows: int
    sequences: int
    indexes: int
    heaps: int
    not_examined: tuple[str, ...]
    other: tuple[str, ...] = ()
    """What is not as it was, and is not for a dump to bring: roles, settings, the locale."""

    def lines(self) -> Iterator[str]:
        """Yield the proof for people."""
        yield (
            f"proven: {self.objects} objects, {self.tables} tables with {self.rows:,} rows by "
            f"digest, {self.sequences} sequences; amcheck: {self.indexes} indexes, "
            f"{self.heaps} tables"
        )
        yield from (f"NOT as it was: {one}" for one in self.other)
        yield from (f"NOT examined: {one}" for one in self.not_examined)

    def facts(self) -> dict[str, Any]:
        return asdict(self)


def prove(
    connection: Connection[Any], facts: Mapping[str, Any], *, known: Sequence[str] = ()
) -> Proof:
    """Compare a restored database with the facts of its backup, and examine its structure.

    `known` are problems that the source had as well: constraints that were never validated there.

    Raises RestoreError naming everything that is not as it was.
    """
    found = [*differences(connection, dict(facts)), *unsound(connection, known=known)]
    structure, not_examined, (indexes, heaps) = amcheck(connection)
    found += structure
    other = list[str]()
    if "catalogue" in facts:
        wrong, other = unlike(connection, facts)
        found += wrong
    else:
        not_examined.append("owners, grants and policies: the backup did not note them")
    if found:
        raise RestoreError("restored, but not the same:\n" + "\n".join(found))
    owned = owned_sequences(connection)
    not_examined += [f"{one}: {one.passed_over}" for one in owned if one.passed_over]
    if not facts["tables"]:
        not_examined.append("rows: the backup has none")
    return Proof(
        objects=len(facts["objects"]),
        tables=len(facts["tables"]),
        rows=sum(table["rows"] for table in facts["tables"]),
        sequences=sum(not one.passed_over for one in owned),
        indexes=indexes,
        heaps=heaps,
        not_examined=tuple(not_examined),
        other=tuple(other),
    )


def unsound(
    connection: Connection[Any], only: Sequence[int] | None = None, known: Sequence[str] = ()
) -> list[str]:
    """Name sequences that would give a value again, and constraints that nobody vouches for."""
    with connection.transaction():
        prepare(connection)  # names come out qualified
        told = [
            f"{one} would give {last} again, which {one.of_schema}.{one.of_table} holds"
            for one in owned_sequences(connection, only)
            if (last := one.behind(connection)) is not None
        ]
        told += [row[0] for row in connection.execute(_UNSOUND, {"only": only}).fetchall()]
    return [one for one in told if one not in known]


def amcheck(
    connection: Connection[Any], only: Sequence[int] | None = None
) -> tuple[list[str], list[str], tuple[int, int]]:
    """Examine B-trees against their tables, and tables themselves; `only` takes oids of tables.

    Returns what is damaged, what could not be examined, and how many of both were sound. The
    extension is made in a transaction that is rolled back: nothing of it stays. Raises RestoreError
    where reading ended the connection.
    """
    with connection.transaction(force_rollback=True):
        try:
            where = _at_hand(connection)
        except _NOT_AT_HAND as error:
            return [], [f"structure: amcheck is not at hand: {_first_line(error)}"], (0, 0)
        damaged = list[str]()
        indexes = _examine_indexes(connection, where, only, damaged)
        heaps = _examine_heaps(connection, where, only, damaged)
    return damaged, [LIMITS], (indexes, heaps)


def _at_hand(connection: Connection[Any]) -> sql.Identifier:
    """Make the extension, or bring the one that is there up to date; answer its schema."""
    with connection.transaction():
        connection.execute("SET LOCAL search_path = pg_catalog")  # names come out qualified
        connection.execute(_UNHURRIED)
        row = connection.execute(
            "SELECT nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
            " WHERE extname = 'amcheck'"
        ).fetchone()
        if row is None:
            connection.execute("CREATE SCHEMA pipeline_amcheck")
            connection.execute("CREATE EXTENSION amcheck WITH SCHEMA pipeline_amcheck")
            return sql.Identifier("pipeline_amcheck")
        connection.execute("ALTER EXTENSION amcheck UPDATE")  # pg_upgrade leaves it as it was
        return sql.Identifier(row[0])


def _examine_indexes(
    connection: Connection[Any],
    where: sql.Identifier,
    only: Sequence[int] | None,
    damaged: list[str],
) -> int:
    """Every row of a table must be found in each of its indexes, in its place."""
    version = connection.info.server_version // 10000
    sound = 0
    for name, unique in connection.execute(_INDEXES, {"only": only}).fetchall():
        # checkunique came with PostgreSQL 17
        arguments = [name, True, unique] if version >= 17 else [name, True]
        places = sql.SQL(", ").join(sql.Placeholder() for _ in arguments[1:])
        query = sql.SQL("SELECT {}.bt_index_check(%s::regclass, {})").format(where, places)
        with _noting(connection, f"index {name}", damaged), connection.transaction():
            connection.execute(query, arguments)
            sound += 1
    return sound


def _examine_heaps(
    connection: Connection[Any],
    where: sql.Identifier,
    only: Sequence[int] | None,
    damaged: list[str],
) -> int:
    query = sql.SQL(
        "SELECT blkno, offnum, msg FROM {}.verify_heapam(%s::regclass, check_toast => true) LIMIT 3"
    ).format(where)
    sound = 0
    for (name,) in connection.execute(_HEAPS, {"only": only}).fetchall():
        with _noting(connection, f"table {name}", damaged), connection.transaction():
            told = connection.execute(query, [name]).fetchall()
            damaged += [f"table {name}: block {row[0]}, item {row[1]}: {row[2]}" for row in told]
            sound += not told
    return sound


@contextmanager
def _noting(connection: Connection[Any], what: str, damaged: list[str]) -> Iterator[None]:
    """Note an error as damage; raise RestoreError, with all noted before, where it is the end."""
    try:
        yield
    except psycopg.Error as error:
        damaged.append(f"{what}: {_first_line(error)}")
        if connection.closed:
            raise RestoreError("; ".join(damaged)) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
