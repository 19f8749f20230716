"""Make the rows of a table those of a copy, by no other changes than the differences.

So the table keeps its identity, its grants, its place in publications and views, and a consumer
of its changes is told exactly what was changed: rows that are equal have no event.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from psycopg import Connection, errors, sql

from pipeline.errors import RestoreError
from pipeline.postgres.logical.relations import Column, ForeignKey, Name, Relation, where_same

_TRIGGERS = """
    SELECT tgname, tgenabled FROM pg_trigger
     WHERE tgrelid = %s AND NOT tgisinternal AND tgenabled <> 'D' AND tgparentid = 0
"""
_ENABLE = {
    "O": sql.SQL("ENABLE TRIGGER"),
    "A": sql.SQL("ENABLE ALWAYS TRIGGER"),
    "R": sql.SQL("ENABLE REPLICA TRIGGER"),
}


@dataclass(frozen=True)
class Rewound:
    """A table that shall hold the rows of `copy`, a table with the same columns."""

    relation: Relation
    columns: tuple[Column, ...]
    copy: sql.Composable

    @property
    def _keys(self) -> list[str]:
        return [column.name for column in self.columns if column.key]

    @property
    def _same_key(self) -> sql.Composed:
        """Without a key no row is another one: all go and all come, which a new table may."""
        same = where_same("l", "c", [(name, name) for name in self._keys])
        return same if self._keys else sql.SQL("{}").format(False)

    def refusal(self, found: Sequence[Column]) -> str | None:
        """Say why rows cannot be compared with a table that has columns `found`, or None."""
        if not self._keys:
            return f"{self.relation} has no primary key: rows cannot be told apart"
        before = [(column.name, column.type) for column in self.columns]
        now = [(column.name, column.type) for column in found]
        if before != now:
            gone, new = sorted(set(before) - set(now)), sorted(set(now) - set(before))
            return (
                f"the columns of {self.relation} were altered since the target: "
                f"then {gone or 'the same, in another order'}, now {new}"
            )
        return None

    def delete(self, connection: Connection[Any]) -> int:
        """Delete rows that the copy has not."""
        query = sql.SQL("DELETE FROM {} l WHERE NOT EXISTS (SELECT FROM {} c WHERE {})").format(
            self.relation.rows_of, self.copy, self._same_key
        )
        return connection.execute(query).rowcount

    def update(self, connection: Connection[Any]) -> dict[str, int]:
        """Give rows that differ the values of the copy; compared as text, as the digests are.

        Where a value went from one row to another, whichever comes first meets the other, and
        PostgreSQL looks at each: there rows are replaced, all at once. Returns the counts.
        """
        names = [
            sql.Identifier(c.name) for c in self.columns if not (c.key or c.generated or c.always)
        ]
        if not names:
            return {"updated": 0}
        values = sql.SQL(", ")
        differ = sql.SQL('{} AND ROW({})::text COLLATE "C" <> ROW({})::text COLLATE "C"').format(
            self._same_key,
            values.join(sql.SQL("l.{}").format(name) for name in names),
            values.join(sql.SQL("c.{}").format(name) for name in names),
        )
        query = sql.SQL("UPDATE {} l SET {} FROM {} c WHERE {}").format(
            self.relation.rows_of,
            values.join(sql.SQL("{} = c.{}").format(name, name) for name in names),
            self.copy,
            differ,
        )
        try:
            with connection.transaction():
                return {"updated": connection.execute(query).rowcount}
        except (errors.UniqueViolation, errors.ExclusionViolation):
            return {"updated": 0, "replaced": self._replace(connection, differ)}

    def _replace(self, connection: Connection[Any], differ: sql.Composed) -> int:
        """Delete rows that differ and insert those of the copy in one statement.

        Foreign keys do not act: the row that another one refers to is there again at its end, and
        what the new values refer to was looked at before. The insert waits for all to be gone.
        """
        keys = sql.SQL(", ").join(sql.Identifier(name) for name in self._keys)
        query = sql.SQL(
            "WITH gone AS (DELETE FROM {} l USING {} c WHERE {} RETURNING {}) {}"
            " WHERE (SELECT count(*) FROM gone) > 0 AND ({}) IN (SELECT {} FROM gone)"
        ).format(
            self.relation.rows_of,
            self.copy,
            differ,
            sql.SQL(", ").join(sql.Identifier("c", name) for name in self._keys),
            self._insert(),
            sql.SQL(", ").join(sql.Identifier("c", name) for name in self._keys),
            keys,
        )
        (before,) = connection.execute("SHOW session_replication_role").fetchone() or ("origin",)
        connection.execute("SET LOCAL session_replication_role = replica")
        replaced = connection.execute(query).rowcount
        connection.execute("SELECT set_config('session_replication_role', %s, true)", [before])
        return replaced

    def insert(self, connection: Connection[Any]) -> int:
        """Insert rows that only the copy has."""
        query = sql.SQL("{} WHERE NOT EXISTS (SELECT FROM {} l WHERE {})").format(
            self._insert(), self.relation.rows_of, self._same_key
        )
        return connection.execute(query).rowcount

    def _insert(self) -> sql.Composed:
        """Spell the insert of rows of the copy, `c`."""
        names = [sql.Identifier(c.name) for c in self.columns if not c.generated]
        return sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} c").format(
            sql.Identifier(*self.relation.place),
            sql.SQL(", ").join(names),
            sql.SQL(", ").join(sql.SQL("c.{}").format(name) for name in names),
            self.copy,
        )


def rewind(connection: Connection[Any], tables: Sequence[Rewound]) -> dict[str, dict[str, int]]:
    """Apply the differences, `tables` in the order of `parents_first`; return their counts.

    Within the caller's transaction, which holds a lock against other writers.
    """
    counts: dict[str, dict[str, int]] = {str(table.relation): {} for table in tables}
    with _silent(connection, [table.relation for table in tables]):
        for table in reversed(tables):
            counts[str(table.relation)]["deleted"] = table.delete(connection)
        for table in tables:
            counts[str(table.relation)] |= table.update(connection)
            counts[str(table.relation)]["inserted"] = table.insert(connection)
    return counts


@contextmanager
def _silent(connection: Connection[Any], tables: Sequence[Relation]) -> Iterator[None]:
    """Keep users' triggers quiet: they ran when the rows were first written. Foreign keys act."""
    kept: list[tuple[Relation, str, str]] = []
    for table in tables:
        for name, enabled in connection.execute(_TRIGGERS, [table.oid]).fetchall():
            kept.append((table, name, enabled))
            _alter(connection, table, sql.SQL("DISABLE TRIGGER"), name)
    yield
    # deferred constraints would leave events that forbid ALTER TABLE, and fail at COMMIT only
    connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for table, name, enabled in kept:
        _alter(connection, table, _ENABLE[enabled], name)


def _alter(connection: Connection[Any], table: Relation, what: sql.SQL, trigger: str) -> None:
    connection.execute(
        sql.SQL("ALTER TABLE {} {} {}").format(
            sql.Identifier(*table.place), what, sql.Identifier(trigger)
        )
    )


def parents_first(tables: Sequence[Relation], keys: Sequence[ForeignKey]) -> list[Relation]:
    """Order tables so that no row is inserted before the row that it refers to.

    Raises RestoreError for tables that refer to each other in a circle.
    """
    waiting = {table.place: table for table in tables}
    ordered: list[Relation] = []
    while waiting:
        blocked = {
            key.child
            for key in keys
            if key.child != key.parent and {key.child, key.parent} <= waiting.keys()
        }
        free: list[Name] = [place for place in waiting if place not in blocked]
        if not free:
            circle = ", ".join(str(table) for table in waiting.values())
            raise RestoreError(f"foreign keys of {circle} refer to each other in a circle")
        ordered += [waiting.pop(place) for place in free]
    return ordered
