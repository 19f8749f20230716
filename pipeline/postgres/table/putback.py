"""Put staged tables in the place of what is wrong or gone: one transaction, proven before COMMIT.

Nothing of it is seen unless rows, digests and objects are those of the target and no other table
was changed. Other tables stay open to readers and writers; the restored ones to readers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from psycopg import Connection, sql

from pipeline.errors import RestoreError, ServerError
from pipeline.postgres.logical.relations import (
    ForeignKey,
    Name,
    Relation,
    family,
    foreign_keys,
    orphans,
    owned_sequences,
)
from pipeline.postgres.table.copied import Copied
from pipeline.postgres.table.patience import patiently
from pipeline.postgres.table.putback_proof import prove_defined, prove_same, prove_untouched
from pipeline.postgres.table.rewind import Rewound, parents_first, rewind
from pipeline.postgres.table.staging import refuse_unlike

YIELD = timedelta(seconds=5)
_SETTINGS = {
    "track_counts": "on",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "extra_float_digits": "1",  # rows are compared as text, as the digests are
    "row_security": "off",  # an error where a policy would hide rows
}


class Contended(ServerError):
    """Clients hold what is needed and may wait for what we hold: roll back, and begin again."""


@dataclass(frozen=True)
class PutBack:
    """What the transaction did and, until it commits, what it was proven to be."""

    counts: Mapping[str, Mapping[str, int]]
    sequences: Mapping[str, int]
    keys: Sequence[str]
    locks: Mapping[str, Sequence[str]]
    absent: Sequence[str]
    otherwise: Sequence[str]

    def facts(self) -> dict[str, Any]:
        return dict(vars(self))

    @property
    def changed(self) -> int:
        """Rows that were deleted, updated or inserted: the events that consumers will see."""
        return sum(sum(kinds.values()) for kinds in self.counts.values())


def put_back(live: Connection[Any], copied: Copied) -> PutBack:
    """Do it all, within the caller's transaction; RestoreError where anything is not as it must be.

    The order: lock, look for orphans, move tables in, apply differences, sequences, foreign keys
    of other tables, proof, drop the staging schema.
    """
    for name, value in _SETTINGS.items():
        live.execute("SELECT set_config(%s, %s, true)", [name, value])
    existing = [one for one in copied.relations if one.place not in copied.missing]
    lock(live, [one for one in existing if not one.partition])
    for table in copied.rewound:
        if table.relation.place not in copied.missing:
            refuse_unlike(live, table)
    keys = _keys(live, copied, existing)
    if found := list(_orphans(live, copied, keys)):
        raise RestoreError(
            "rows of other tables would be left without their parent, nothing was changed: restore "
            "those tables too (--table again for each), or mend the rows\n" + "\n".join(found)
        )
    _move_in(live, copied)
    tables = _as_live(live, copied)
    counts = rewind(live, tables)
    oids = [one.oid for table in copied.relations for one in family(live, table.quoted)[:1]]
    sequences = _advance(live, oids)
    added = list(_add_keys(live, copied))
    absent = prove_same(live, copied, oids)
    otherwise = prove_defined(live, copied, oids)
    locks = prove_untouched(live, oids, copied.schema)
    _drop(live, copied)
    return PutBack(counts, sequences, added, locks, absent, otherwise)


def lock(live: Connection[Any], tables: Sequence[Relation]) -> None:
    """Keep writers out of tables, and out of rows that refer to them; readers stay in.

    ROW SHARE conflicts: who inserts a row that refers to a locked table waits.
    """
    if not tables:
        return
    names = sql.SQL(", ").join(one.rows_of for one in tables)
    statement = sql.SQL("LOCK TABLE {} IN EXCLUSIVE MODE").format(names)
    patiently(live, f"lock of {', '.join(map(str, tables))}", statement)


def _keys(live: Connection[Any], copied: Copied, existing: Sequence[Relation]) -> list[ForeignKey]:
    """Foreign keys that will hold afterwards: the live ones, and those of what is made again."""
    oids = [one.oid for table in existing for one in family(live, table.quoted)[:1]]
    again = [key for key in copied.keys if {key.child, key.parent} & set(copied.missing)]
    return list(
        {(key.child, key.name): key for key in (*foreign_keys(live, oids), *again)}.values()
    )


def _orphans(live: Connection[Any], copied: Copied, keys: Sequence[ForeignKey]) -> Iterator[str]:
    copies = {table.relation.place: table.copy for table in copied.rewound}
    restored = {one.place for one in copied.relations}
    for key in keys:
        others = {key.child, key.parent} - restored
        if not all(_is_there(live, end) for end in others) or not others:
            continue
        if told := orphans(
            live,
            key,
            copies.get(key.child, sql.Identifier(*key.child)),
            copies.get(key.parent, sql.Identifier(*key.parent)),
        ):
            yield told


def _is_there(live: Connection[Any], end: Name) -> bool:
    name = sql.Identifier(*end).as_string(live)
    row = live.execute("SELECT to_regclass(%s)", [name]).fetchone()
    return row is not None and row[0] is not None


def _move_in(live: Connection[Any], copied: Copied) -> None:
    for statement in copied.schemas:
        live.execute(statement.encode())
    for schema, name in copied.missing:
        live.execute(
            sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(
                sql.Identifier(copied.schema, name), sql.Identifier(schema)
            )
        )


def _as_live(live: Connection[Any], copied: Copied) -> list[Rewound]:
    """Order the tables, each by the identity that the live server gives it."""
    tables = {table.relation.place: table for table in copied.rewound}
    oids = {place: family(live, table.relation.quoted)[0] for place, table in tables.items()}
    keys = foreign_keys(live, [one.oid for one in oids.values()])
    ordered = parents_first(list(oids.values()), keys)
    return [Rewound(one, tables[one.place].columns, tables[one.place].copy) for one in ordered]


def _advance(live: Connection[Any], oids: Sequence[int]) -> dict[str, int]:
    """Set sequences that would give a value again; those of live tables went on by themselves."""
    advanced = {}
    for one in owned_sequences(live, oids):
        if (last := one.behind(live)) is not None:
            one.advance(live, last)
            advanced[str(one)] = last
    return advanced


def _add_keys(live: Connection[Any], copied: Copied) -> Iterator[str]:
    """Give other tables back their foreign keys to tables that had been dropped.

    NOT VALID, so that the locks on them are short; `validate` reads the rows afterwards. All
    their locks are taken at once or none: with one of them held, a client that has the next one
    and waits for the first would never let go.
    """
    missing = set(copied.missing)
    keys = [
        key
        for key in copied.keys
        if key.parent in missing and key.child not in missing and _lacks(live, key)
    ]
    if not keys:
        return
    names = sql.SQL(", ").join(sql.Identifier(*child) for child in sorted({k.child for k in keys}))
    mode = sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(names)
    try:
        patiently(live, f"locks for {', '.join(map(str, keys))}", mode, within=YIELD)
    except ServerError as error:
        raise Contended(str(error)) from error
    for key in keys:
        # NOT VALID is not for partitioned tables before PostgreSQL 18
        later = sql.SQL("" if key.of_partitioned else " NOT VALID")
        live.execute(
            sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}{}").format(
                sql.Identifier(*key.child),
                sql.Identifier(key.name),
                sql.SQL(key.definition.removesuffix(" NOT VALID")),
                later,
            )
        )
        yield str(key)


def _lacks(live: Connection[Any], key: ForeignKey) -> bool:
    """Whether the key's table is there, and the key is not."""
    name = sql.Identifier(*key.child).as_string(live)
    row = live.execute(
        "SELECT to_regclass(%s) IS NOT NULL AND NOT EXISTS (SELECT FROM pg_constraint"
        " WHERE conrelid = to_regclass(%s) AND conname = %s)",
        [name, name, key.name],
    ).fetchone()
    return row == (True,)


def validate(live: Connection[Any], oids: Sequence[int]) -> list[str]:
    """Validate the foreign keys from and to tables that nobody vouched for yet."""
    done = []
    for key in foreign_keys(live, oids):
        if not key.valid:
            statement = sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}")
            name = sql.Identifier(*key.child), sql.Identifier(key.name)
            live.execute(statement.format(*name))
            done.append(str(key))
    return done


def _drop(live: Connection[Any], copied: Copied) -> None:
    """Drop copies and schema without CASCADE: what is somebody else's stops us."""
    for table in copied.rewound:
        live.execute(sql.SQL("DROP TABLE {}").format(table.copy))
    live.execute(sql.SQL("DROP SCHEMA {}").format(sql.Identifier(copied.schema)))


def publications(live: Connection[Any], copied: Copied) -> list[str]:
    """Name publications that a table was in at the target and is not in now."""
    rows = live.execute(
        "SELECT pubname::text, schemaname::text, tablename::text FROM pg_publication_tables"
    ).fetchall()
    held: set[tuple[Name, str]] = {((row[1], row[2]), row[0]) for row in rows}
    return [
        f"{schema}.{name} is not in publication {publication}"
        for publication, schema, name in copied.published
        if ((schema, name), publication) not in held
    ]
