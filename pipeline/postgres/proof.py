"""What every restore ends with: objects, rows, digests, sequences, constraints, structure.

What could not be examined is said as such, and never counted as sound.
"""

from collections.abc import Iterator, Mapping, Sequence
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
    if not facts["tables"]:
        not_examined.append("rows: the backup has none")
    return Proof(
        objects=len(facts["objects"]),
        tables=len(facts["tables"]),
        rows=sum(table["rows"] for table in facts["tables"]),
        sequences=len(owned_sequences(connection)),
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
    extension is made in a transaction that is rolled back: nothing of it stays.
    """
    not_examined = ["indexes other than B-trees, and what TOAST holds beyond its presence"]
    with connection.transaction(force_rollback=True):
        try:
            with connection.transaction():
                connection.execute("SET LOCAL search_path = pg_catalog")
                connection.execute("CREATE SCHEMA pipeline_amcheck")
                connection.execute("CREATE EXTENSION amcheck WITH SCHEMA pipeline_amcheck")
            where = sql.Identifier("pipeline_amcheck")
        except psycopg.errors.DuplicateObject:
            row = connection.execute(
                "SELECT extnamespace::regnamespace::text FROM pg_extension"
                " WHERE extname = 'amcheck'"
            ).fetchone()
            where = sql.Identifier(row[0] if row else "public")
        except psycopg.Error as error:
            told = str(error).strip().splitlines()[0]
            return [], [f"structure: amcheck is not at hand: {told}"], (0, 0)
        connection.execute("SET LOCAL search_path = pg_catalog")  # names come out qualified
        broken, indexes = _examine_indexes(connection, where, only)
        damaged, heaps = _examine_heaps(connection, where, only)
    return broken + damaged, not_examined, (indexes, heaps)


def _examine_indexes(
    connection: Connection[Any], where: sql.Identifier, only: Sequence[int] | None
) -> tuple[list[str], int]:
    """Every row of a table must be found in each of its indexes, in its place."""
    version = connection.info.server_version // 10000
    broken = []
    found = connection.execute(_INDEXES, {"only": only}).fetchall()
    for name, unique in found:
        # checkunique came with PostgreSQL 17
        arguments = [name, True, unique] if version >= 17 else [name, True]
        places = sql.SQL(", ").join(sql.Placeholder() for _ in arguments[1:])
        query = sql.SQL("SELECT {}.bt_index_check(%s::regclass, {})").format(where, places)
        try:
            with connection.transaction():
                connection.execute(query, arguments)
        except psycopg.Error as error:
            broken.append(f"index {name}: {str(error).strip().splitlines()[0]}")
    return broken, len(found) - len(broken)


def _examine_heaps(
    connection: Connection[Any], where: sql.Identifier, only: Sequence[int] | None
) -> tuple[list[str], int]:
    query = sql.SQL(
        "SELECT blkno, offnum, msg FROM {}.verify_heapam(%s::regclass, check_toast => true) LIMIT 3"
    ).format(where)
    damaged, sound = [], 0
    for (name,) in connection.execute(_HEAPS, {"only": only}).fetchall():
        try:
            with connection.transaction():
                told = connection.execute(query, [name]).fetchall()
        except psycopg.Error as error:
            damaged.append(f"table {name}: {str(error).strip().splitlines()[0]}")
            continue
        damaged += [f"table {name}: block {row[0]}, item {row[1]}: {row[2]}" for row in told]
        sound += not told
    return damaged, sound
