"""Publications: which changes of the source reach its consumers."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import psycopg
from psycopg import sql
from pydantic import TypeAdapter

Connection = psycopg.Connection[Any]

_TABLES = """
    SELECT n.nspname, c.relname,
           (SELECT array_agg(a.attname ORDER BY a.attname) FROM pg_attribute a
            WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs)),
           pg_get_expr(r.prqual, r.prrelid)
    FROM pg_publication_rel r
    JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE r.prpubid = %s ORDER BY 1, 2"""
_SCHEMAS = """
    SELECT n.nspname FROM pg_publication_namespace p JOIN pg_namespace n ON n.oid = p.pnnspid
    WHERE p.pnpubid = %s ORDER BY 1"""
# a partitioned table stands for its leaves, or by publish_via_partition_root for them itself
_CHANGED = """
    WITH named AS (
        SELECT c.oid, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
           AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
           AND (%(all)s OR n.nspname = ANY(%(schemas)s)
                OR concat_ws('.', n.nspname, c.relname) = ANY(%(tables)s))
    ), changed AS (
        SELECT oid FROM named WHERE %(root)s AND NOT EXISTS (
            SELECT FROM pg_partition_ancestors(named.oid) a JOIN named o ON o.oid = a.relid
             WHERE o.oid <> named.oid)
        UNION SELECT oid FROM named WHERE relkind = 'r' AND NOT %(root)s
        UNION SELECT relid FROM named, pg_partition_tree(oid) WHERE isleaf AND NOT %(root)s
    )
    SELECT concat_ws('.', n.nspname, c.relname)
      FROM changed JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
     ORDER BY 1"""
OPERATIONS = ("insert", "update", "delete", "truncate")
_NO_COLUMNS = "none"
_GENERATED = {"n": _NO_COLUMNS, "s": "stored"}


@dataclass(frozen=True)
class PublishedTable:
    """A table in a publication; `columns` and `rows` are None when nothing is left out."""

    schema: str
    name: str
    columns: tuple[str, ...] | None = None
    rows: str | None = None

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True)
class Publication:
    """A publication as its own CREATE statement would spell it.

    `generated_columns` is 'none' also before PostgreSQL 18, which publishes none and has no such
    setting.
    """

    name: str
    owner: str
    all_tables: bool
    publish: tuple[str, ...]
    via_root: bool
    generated_columns: str
    schemas: tuple[str, ...]
    tables: tuple[PublishedTable, ...]

    def facts(self) -> dict[str, Any]:
        """JSON-able, for a manifest; `of` reads it back."""
        return asdict(self)

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Self:
        told = facts | {"generated_columns": facts.get("generated_columns") or _NO_COLUMNS}
        return TypeAdapter(cls).validate_python(told)


def find_publication(connection: Connection, name: str) -> Publication | None:
    """The publication of that name in the connection's database, or None."""
    found = connection.execute(
        "SELECT to_jsonb(p), pg_get_userbyid(p.pubowner), p.oid FROM pg_publication p"
        " WHERE pubname = %s",
        [name],
    ).fetchone()
    if found is None:
        return None
    row, owner, oid = found
    tables = connection.execute(_TABLES, [oid]).fetchall()
    return Publication(
        name=name,
        owner=owner,
        all_tables=row["puballtables"],
        publish=tuple(word for word in OPERATIONS if row[f"pub{word}"]),
        via_root=row["pubviaroot"],
        generated_columns=_GENERATED.get(row.get("pubgencols", ""), _NO_COLUMNS),
        schemas=tuple(schema for (schema,) in connection.execute(_SCHEMAS, [oid])),
        tables=tuple(
            PublishedTable(schema, table, columns and tuple(columns), rows)
            for schema, table, columns, rows in tables
        ),
    )


def changed_tables(connection: Connection, publication: Publication) -> list[str]:
    """Name the tables whose changes a publication has, or would have were it there."""
    asked = {
        "all": publication.all_tables,
        "schemas": list(publication.schemas),
        "tables": [str(table) for table in publication.tables],
        "root": publication.via_root,
    }
    return [name for (name,) in connection.execute(_CHANGED, asked)]


def differences(expected: Publication, found: Publication | None) -> list[str]:
    """What an operator has to know, in words; empty when nothing differs."""
    if found is None:
        return [f"publication {expected.name!r} does not exist"]
    plain = [f.name for f in fields(Publication) if f.name not in {"tables", "schemas"}]
    told = [
        f"{name}: expected {getattr(expected, name)!r}, found {getattr(found, name)!r}"
        for name in plain
        if getattr(expected, name) != getattr(found, name)
    ]
    wanted, present = ({str(t): t for t in p.tables} for p in (expected, found))
    wanted_schemas, present_schemas = set(expected.schemas), set(found.schemas)
    told += [f"table {t} is not published" for t in sorted(wanted.keys() - present.keys())]
    told += [f"table {t} is published too" for t in sorted(present.keys() - wanted.keys())]
    told += [f"schema {s} is not published" for s in sorted(wanted_schemas - present_schemas)]
    told += [f"schema {s} is published too" for s in sorted(present_schemas - wanted_schemas)]
    for table in sorted(wanted.keys() & present.keys()):
        told += _table_differences(wanted[table], present[table])
    return told


def narrowed(
    then: Publication, now: Publication, *, partitioned: bool = True
) -> Iterator[tuple[str, str | None]]:
    """Yield what consumers got, and why they do not get it now, or None.

    That they get more is no loss, nor is another owner.
    """
    listed = "it was FOR ALL TABLES, and a new table is not published now"
    yield now.name, listed if then.all_tables and not now.all_tables else None
    other = f"publish_via_partition_root was {then.via_root}, and is {now.via_root}: changes of "
    other += "partitions go to other topics"
    yield now.name, other if partitioned and then.via_root != now.via_root else None
    for schema in then.schemas:
        gone = None if now.all_tables or schema in now.schemas else "it was published as a whole"
        yield f"schema {schema}", gone
    present = {str(table): table for table in now.tables}
    for table in then.tables:
        whole = now.all_tables or table.schema in now.schemas
        yield str(table), None if whole else _less_of(table, present.get(str(table)))


def _less_of(then: PublishedTable, now: PublishedTable | None) -> str | None:
    if now is None:
        return "it was published, and is not"
    if now.rows is not None and now.rows != then.rows:
        return f"its rows were filtered by {then.rows or 'nothing'}, now by {now.rows}"
    if now.columns is not None and (hidden := set(then.columns or ()) - set(now.columns)):
        return f"{', '.join(sorted(hidden))} of it was published, and is not"
    return None


def _table_differences(expected: PublishedTable, found: PublishedTable) -> list[str]:
    told = []
    if expected.columns != found.columns:
        told.append(f"columns of {expected}: expected {expected.columns}, found {found.columns}")
    if expected.rows != found.rows:
        told.append(f"row filter of {expected}: expected {expected.rows}, found {found.rows}")
    return told


def recreate(connection: Connection, publication: Publication) -> list[str]:
    """Make the publication what it was; returns the differences that were found, then mended.

    Before the slot is created, never after: pgoutput looks the publication up as of the change
    that it decodes.
    """
    found = find_publication(connection, publication.name)
    if not (told := differences(publication, found)):
        return []
    with connection.transaction():
        name = sql.Identifier(publication.name)
        connection.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(name))
        connection.execute(_create(publication))
        owner = sql.Identifier(publication.owner)
        connection.execute(sql.SQL("ALTER PUBLICATION {} OWNER TO {}").format(name, owner))
    return told


def as_list(publication: str) -> str:
    """Spell a name as pgoutput reads it, which takes a list of them."""
    return '"' + publication.replace('"', '""') + '"'


def add_table(connection: Connection, publication: str, table: PublishedTable) -> None:
    """Publish one more table, with the columns and rows that it was published with."""
    query = sql.SQL("ALTER PUBLICATION {} ADD {}")
    connection.execute(query.format(sql.Identifier(publication), _member(table)))


def _create(publication: Publication) -> sql.Composed:
    settings = [
        sql.SQL("publish = {}").format(", ".join(publication.publish)),
        sql.SQL("publish_via_partition_root = {}").format(publication.via_root),
    ]
    if publication.generated_columns != _NO_COLUMNS:
        chosen = sql.Identifier(publication.generated_columns)
        settings.append(sql.SQL("publish_generated_columns = {}").format(chosen))
    return sql.SQL("CREATE PUBLICATION {} {}WITH ({})").format(
        sql.Identifier(publication.name), _members(publication), sql.SQL(", ").join(settings)
    )


def _members(publication: Publication) -> sql.Composable:
    if publication.all_tables:
        return sql.SQL("FOR ALL TABLES ")
    members = [_member(table) for table in publication.tables] + [
        sql.SQL("TABLES IN SCHEMA {}").format(sql.Identifier(s)) for s in publication.schemas
    ]
    return sql.SQL("FOR {} ").format(sql.SQL(", ").join(members)) if members else sql.SQL("")


def _member(table: PublishedTable) -> sql.Composed:
    parts: list[sql.Composable] = [sql.SQL("TABLE "), sql.Identifier(table.schema, table.name)]
    if table.columns is not None:
        columns = sql.SQL(", ").join(map(sql.Identifier, table.columns))
        parts.append(sql.SQL(" ({})").format(columns))
    if table.rows is not None:
        # an expression that PostgreSQL itself deparsed; there is no other way to give it back
        parts.append(sql.SQL(" WHERE ({})").format(sql.SQL(table.rows)))
    return sql.Composed(parts)
