"""Rules that a schema states about its rows, asked of a server without believing its indexes."""

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from checks.check import Observation
from pipeline.postgres.logical.relations import owned_sequences

_FOREIGN_KEYS = """
    select f.conname as name, n.nspname as schema, c.relname as table,
           rn.nspname as to_schema, r.relname as to_table, f.convalidated as validated,
           f.confmatchtype = 'f' as full,
           (select array_agg(a.attname::text order by k.n)
              from unnest(f.conkey) with ordinality k (num, n)
              join pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.num) as columns,
           (select array_agg(a.attname::text order by k.n)
              from unnest(f.confkey) with ordinality k (num, n)
              join pg_attribute a on a.attrelid = f.confrelid and a.attnum = k.num) as to_columns
      from pg_constraint f
      join pg_class c on c.oid = f.conrelid join pg_namespace n on n.oid = c.relnamespace
      join pg_class r on r.oid = f.confrelid join pg_namespace rn on rn.oid = r.relnamespace
     where f.contype = 'f' and f.conparentid = 0 and not coalesce(f.conperiod, false)
       and coalesce(f.conenforced, true)
"""
_CHECKS = """
    select k.conname as name, n.nspname as schema, c.relname as table, k.convalidated as validated,
           pg_get_expr(k.conbin, k.conrelid) as rule
      from pg_constraint k
      join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
     where k.contype = 'c' and c.relkind = 'r' and n.nspname !~ '^(pg_|information_schema)'
       and coalesce(k.conenforced, true)
"""


def references(connection: psycopg.Connection[Any]) -> Iterator[Observation]:
    """Look for rows that break a foreign key or a check constraint, whatever the catalogue says."""
    yield Observation("constraints", settled(connection))
    with connection.cursor(row_factory=dict_row) as cursor:
        # an index may have what its table lost
        for scan in ("indexscan", "indexonlyscan", "bitmapscan"):
            cursor.execute(f"set enable_{scan} = off".encode())
        for key in cursor.execute(_catalogue(connection, _FOREIGN_KEYS)).fetchall():
            yield _constraint(cursor, key, _orphans(key), "rows refer to nothing")
        for rule in cursor.execute(_catalogue(connection, _CHECKS)).fetchall():
            table = sql.Identifier(rule["schema"], rule["table"])
            rows = sql.SQL("from only {} where not ({})").format(table, sql.SQL(rule["rule"]))
            yield _constraint(cursor, rule, rows, "rows break it")


def settled(connection: psycopg.Connection[Any]) -> str | None:
    """Tell what keeps a restored server from being asked, or None."""
    row = connection.execute("select pg_is_in_recovery()").fetchone()
    return None if row == (False,) else "the server is still in recovery"


def _catalogue(connection: psycopg.Connection[Any], query: str) -> bytes:
    # both columns came with PostgreSQL 18
    if connection.info.server_version < 180_000:
        query = query.replace("coalesce(f.conperiod, false)", "false")
        for alias in "fk":
            query = query.replace(f"coalesce({alias}.conenforced, true)", "true")
    return query.encode()


def _orphans(key: dict[str, Any]) -> sql.Composed:
    """Select rows whose reference is whole and leads nowhere; one with a null refers to nothing."""
    pairs = zip(key["columns"], key["to_columns"], strict=True)
    query = "from {} c where {} and not exists (select from {} p where {})"
    return sql.SQL(query).format(
        sql.Identifier(key["schema"], key["table"]),
        sql.SQL(" and ").join(
            sql.SQL("c.{} is not null").format(sql.Identifier(name)) for name in key["columns"]
        ),
        sql.Identifier(key["to_schema"], key["to_table"]),
        sql.SQL(" and ").join(
            sql.SQL("p.{} = c.{}").format(sql.Identifier(to), sql.Identifier(name))
            for name, to in pairs
        ),
    )


def _constraint(
    cursor: psycopg.Cursor[dict[str, Any]], key: dict[str, Any], rows: sql.Composed, what: str
) -> Observation:
    """Count the rows that break a constraint, and name the query that finds them."""
    broken = cursor.execute(sql.SQL("select count(*) {}").format(rows)).fetchone()
    count = broken["count"] if broken else 0
    unseen = "" if key["validated"] else "; it is NOT VALID, so PostgreSQL never looked"
    told = f"{count} {what} in {key['schema']}.{key['table']}{unseen}: "
    told += f"select * {rows.as_string(cursor)}"
    return Observation(f"{key['schema']}.{key['name']}", told if count else None)


def sequences(connection: psycopg.Connection[Any]) -> Iterator[Observation]:
    """Compare each sequence of a column with what the column holds."""
    yield Observation("sequences", settled(connection))
    for one in owned_sequences(connection):
        last = one.behind(connection)
        told = f"it would give {last} again, which {one.of_schema}.{one.of_table} holds"
        if not one.passed_over:
            yield Observation(f"{one.schema}.{one.name}", None if last is None else told)
