"""Looks rows up by an index with their own values: what is not found, the index has lost.

amcheck compares B-trees alone with their tables. Any other access method has an operator that a
value fulfils with itself (it equals, contains or overlaps itself), so a row that is there must come
back when that operator is asked, and the index alone may answer.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row

SAMPLE = 10_000
"""Rows that are looked up by each index; of a larger table others for each backup."""

# GIN, GiST and BRIN can be asked by any of their columns, the others have one
_INDEXES = """
    select i.indexrelid::bigint as oid, inn.nspname as schema, inx.relname as name,
           i.indrelid::bigint as table_oid, i.indrelid::regclass::text as of_table,
           a.amname as method, o.opcfamily::bigint as family, o.opcintype::regtype::text as type,
           pg_get_indexdef(i.indexrelid, k.n::int, false)
             || coalesce(' collate ' || nullif(k.coll, 0)::regcollation, '') as value,
           coalesce(pg_get_expr(i.indpred, i.indrelid), 'true') as predicate
      from pg_index i
      join pg_class inx on inx.oid = i.indexrelid and inx.relkind = 'i'
                       and inx.relpersistence = 'p'
      join pg_am a on a.oid = inx.relam and a.amname = any (%s)
      join pg_namespace inn on inn.oid = inx.relnamespace
      cross join lateral unnest(i.indclass::oid[], i.indcollation::oid[])
                         with ordinality k (opclass, coll, n)
      join pg_opclass o on o.oid = k.opclass
     where i.indisvalid and i.indisready and k.n <= i.indnkeyatts
       and inn.nspname !~ '^pg_(temp|toast)'
     order by 2, 3, k.n
"""
_METHODS = ["hash", "gin", "gist", "spgist", "brin"]
# the value stands on both sides, so both must take its type; the exact ones first
_OPERATORS = """
    select distinct on (p.oprname, n.nspname) n.nspname as schema, p.oprname as name
      from pg_amop m join pg_operator p on p.oid = m.amopopr
      join pg_namespace n on n.oid = p.oprnamespace
     where m.amopfamily = %s and m.amoppurpose = 's'
       and m.amoplefttype = m.amoprighttype and m.amoplefttype = %s::regtype
       and p.oprresult = 'bool'::regtype
"""
_EXACT = ("=", "~=", "@>", "&&")
_TEXT_SEARCH = "tsvector"
_WORDS = r"""
    select string_agg(
             '''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''', ' & ')::tsquery
      from (select lexeme from unnest(sampled_rows.value) limit 200) words
"""


@dataclass(frozen=True)
class IndexColumn:
    """One column of an index, how its value is spelt, and which rows have an entry."""

    oid: int
    schema: str
    name: str
    table_oid: int
    of_table: str
    method: str
    family: int
    type: str
    value: str
    predicate: str

    @property
    def place(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def own_value(self) -> sql.Composed:
        return sql.SQL("({})").format(sql.SQL(self.value))

    @property
    def indexed(self) -> sql.Composed:
        """Rows with an entry: of a partial index those of its predicate."""
        return sql.SQL("{} is not null and ({})").format(self.own_value, sql.SQL(self.predicate))


class NotAsked(Exception):
    """An index cannot be asked for the rows of its table; the message says why."""


def index_columns(connection: psycopg.Connection[Any]) -> list[IndexColumn]:
    """Columns of indexes of permanent tables that are not B-trees; names come out whole."""
    connection.execute("set search_path = pg_catalog")
    with connection.cursor(row_factory=class_row(IndexColumn)) as cursor:
        return cursor.execute(_INDEXES, [_METHODS]).fetchall()


def lost_rows(connection: psycopg.Connection[Any], column: IndexColumn, seed: int) -> str | None:
    """Say how many rows of a sample the index does not find, None when it finds them all.

    Raises NotAsked where no operator of the index finds a value by itself.
    """
    with connection.transaction(force_rollback=True):
        _leave_only(connection, column)
        share = _share(connection, column)
        if share is None:
            return None
        for condition in _conditions(connection, column):
            query = _query(column, condition, share, seed)
            if not _answered_by(connection, query, column):
                continue
            asked, missed, example = connection.execute(query).fetchone() or (0, 0, None)
            if missed:
                return (
                    f"it does not find {missed:,} of {asked:,} rows that were looked up, such as "
                    f"the one at {example} of {column.of_table}"
                )
            if asked:
                return None
    raise NotAsked(f"{column.place}: no operator of its {column.method} finds a value by itself")


def _leave_only(connection: psycopg.Connection[Any], column: IndexColumn) -> None:
    """Have no other way to a row than this index, until the transaction is rolled back.

    Another index of the same column would be taken, and hide what this one has lost.
    """
    connection.execute(
        "update pg_index set indisvalid = false where indrelid = %s and indexrelid <> %s",
        [column.table_oid, column.oid],
    )
    for scan in ("seqscan", "tidscan"):
        connection.execute(f"set local enable_{scan} = off".encode())


def _share(connection: psycopg.Connection[Any], column: IndexColumn) -> float | None:
    """How much of the table is looked up, in per cent; None where no row is to be found."""
    # a sample of all is no index scan, whatever the planner thinks of it
    query = sql.SQL("select count(*) from only {} tablesample system (100) where {}").format(
        sql.SQL(column.of_table), column.indexed
    )
    row = connection.execute(query).fetchone()
    return min(100.0, 100 * SAMPLE / row[0]) if row and row[0] else None


def _conditions(connection: psycopg.Connection[Any], column: IndexColumn) -> Iterator[sql.Composed]:
    """What a value fulfils with itself, to be put behind it; `sampled_rows` has that of a row."""
    found = connection.execute(_OPERATORS, [column.family, column.type]).fetchall()
    for schema, name in sorted(found, key=lambda row: (_rank(row[1]), row)):
        operator = sql.SQL("operator({}.{})").format(sql.Identifier(schema), sql.SQL(name))
        yield sql.SQL("{} sampled_rows.value").format(operator)
    if column.type == _TEXT_SEARCH:  # a document is found by all of its words
        yield sql.SQL("@@ ({})").format(sql.SQL(_WORDS))


def _rank(operator: str) -> int:
    return _EXACT.index(operator) if operator in _EXACT else len(_EXACT)


def _query(column: IndexColumn, condition: sql.Composed, share: float, seed: int) -> sql.Composed:
    """Count sampled rows, and those of them that the index does not find in their own place."""
    return sql.SQL(
        "with sampled_rows as materialized (select ctid as place, {value} as value"
        " from only {table} tablesample bernoulli ({share}) repeatable ({seed}) where {indexed}),"
        " looked as (select place, (select true from only {table} where {value} {condition}"
        " and ({predicate}) and ctid = sampled_rows.place limit 1) as found"
        " from sampled_rows where value {condition})"
        " select count(*), count(*) filter (where found is null),"
        " (array_agg(place) filter (where found is null))[1]::text from looked"
    ).format(
        value=column.own_value,
        table=sql.SQL(column.of_table),
        share=sql.Literal(share),
        seed=sql.Literal(seed),
        indexed=column.indexed,
        condition=condition,
        predicate=sql.SQL(column.predicate),
    )


def _answered_by(
    connection: psycopg.Connection[Any], query: sql.Composed, column: IndexColumn
) -> bool:
    """Whether the planner looks rows up by this index."""
    row = connection.execute(sql.SQL("explain (format json) {}").format(query)).fetchone()
    return f'"Index Name": {json.dumps(column.name)}' in json.dumps(row[0] if row else None)
