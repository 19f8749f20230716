"""What every restore ends with: objects, rows, digests, sequences, constraints, structure.

What could not be examined is said as such, and never counted as sound.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from psycopg import Connection

from pipeline.errors import RestoreError
from pipeline.postgres.base import large_objects
from pipeline.postgres.base.digests import differences, prepare
from pipeline.postgres.logical.catalogue import unlike
from pipeline.postgres.logical.relations import owned_sequences
from pipeline.postgres.server.amcheck import amcheck

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
    large_objects: int = 0

    def lines(self) -> Iterator[str]:
        """Yield the proof for people."""
        large = f", {self.large_objects:,} large objects" if self.large_objects else ""
        yield (
            f"proven: {self.objects} objects, {self.tables} tables with {self.rows:,} rows by "
            f"digest, {self.sequences} sequences{large}; amcheck: {self.indexes} indexes, "
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
    not_examined += large_objects.left_out(facts)
    if not facts["tables"]:
        not_examined.append("rows: the backup has none")
    return Proof(
        objects=len(facts["objects"]),
        tables=len(facts["tables"]),
        rows=sum(table["rows"] for table in facts["tables"]),
        large_objects=facts[large_objects.FACT]["count"] if large_objects.dumped(facts) else 0,
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
