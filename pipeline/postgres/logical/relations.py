"""What belongs to a table, as the catalogue tells: columns, key, foreign keys, sequences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection, errors, sql
from psycopg.rows import class_row, dict_row

from pipeline.errors import ConfigError
from pipeline.postgres.base.digests import prepare

# a partitioned table holds no rows itself: its partitions come along
_WITH_CHILDREN = """
    WITH RECURSIVE family (oid) AS (
        SELECT %(oid)s::oid
        UNION SELECT i.inhrelid FROM family f JOIN pg_inherits i ON i.inhparent = f.oid)
    SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name,
           c.relkind = 'p' AS partitioned, c.relpersistence = 'p' AS logged,
           c.relispartition AND c.oid <> %(oid)s::oid AS partition
      FROM family f JOIN pg_class c ON c.oid = f.oid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' ORDER BY c.oid
"""
# SQL folds what is not quoted, so the plain name of a table may mean another one to it. One that is
# gone is not found in a schema that SQL would not look into
_PLAIN = """
    SELECT format('%%I.%%I', n.nspname, c.relname), c.oid::bigint
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
       AND (c.relname = %(table)s AND pg_table_is_visible(c.oid)
            OR n.nspname || '.' || c.relname = %(table)s) ORDER BY 1
"""
_COLUMNS = """
    SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
           a.attgenerated <> '' AS generated, a.attidentity = 'a' AS always,
           coalesce(a.attnum = ANY (i.indkey), false) AS key
      FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
     WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_FOREIGN_KEYS = """
    SELECT f.conname AS name, pg_get_constraintdef(f.oid) AS definition, f.convalidated AS valid,
           c.relkind = 'p' AS of_partitioned, cn.nspname AS schema, c.relname AS table,
           rn.nspname AS to_schema, r.relname AS to_table,
           (SELECT array_agg(a.attname::text ORDER BY k.n) FROM unnest(f.conkey)
              WITH ORDINALITY k (num, n) JOIN pg_attribute a
                ON a.attrelid = f.conrelid AND a.attnum = k.num) AS columns,
           (SELECT array_agg(a.attname::text ORDER BY k.n) FROM unnest(f.confkey)
              WITH ORDINALITY k (num, n) JOIN pg_attribute a
                ON a.attrelid = f.confrelid AND a.attnum = k.num) AS to_columns
      FROM pg_constraint f
      JOIN pg_class c ON c.oid = f.conrelid JOIN pg_namespace cn ON cn.oid = c.relnamespace
      JOIN pg_class r ON r.oid = f.confrelid JOIN pg_namespace rn ON rn.oid = r.relnamespace
     WHERE f.contype = 'f' AND f.conparentid = 0
       AND (f.conrelid = ANY (%(only)s) OR f.confrelid = ANY (%(only)s))
     ORDER BY 1, 5, 6
"""
_SEQUENCES = r"""
    SELECT n.nspname AS schema, c.relname AS name, tn.nspname AS of_schema, t.relname AS of_table,
           a.attname AS column, s.seqincrement > 0 AS rising,
           s.seqmin AS least, s.seqmax AS most,
           CASE WHEN s.seqcycle THEN 'its numbers are meant to come again'
                WHEN coalesce(nullif(y.typbasetype, 0), y.oid)::regtype::text NOT IN
                     ('smallint', 'integer', 'bigint', 'numeric')
                THEN format('its column is of type %%s', format_type(y.oid, NULL))
                WHEN EXISTS (
                    WITH RECURSIVE family (oid) AS (
                        SELECT t.oid
                        UNION SELECT i.inhrelid FROM family f JOIN pg_inherits i
                                  ON i.inhparent = f.oid)
                    SELECT FROM family JOIN pg_class USING (oid) WHERE relkind = 'f')
                THEN 'rows of its table are on another server'
           END AS passed_over
      FROM (SELECT objid AS sequence, refobjid AS relation, refobjsubid AS number FROM pg_depend
             WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass
               AND deptype IN ('a', 'i')
            UNION  -- of a column that does not own it: its default says so, and nothing more
            SELECT d.refobjid, f.adrelid, f.adnum FROM pg_attrdef f
              JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid
                              AND d.refclassid = 'pg_class'::regclass
             WHERE pg_get_expr(f.adbin, f.adrelid) ~ '^nextval\(''.*''::regclass\)(::\w+)?$'
           ) d
      JOIN pg_class c ON c.oid = d.sequence AND c.relkind = 'S'
      JOIN pg_sequence s ON s.seqrelid = c.oid
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_class t ON t.oid = d.relation JOIN pg_namespace tn ON tn.oid = t.relnamespace
      JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.number
      JOIN pg_type y ON y.oid = a.atttypid
     WHERE (%(only)s::oid[] IS NULL OR d.relation = ANY (%(only)s))
       AND n.nspname !~ '^pg_' ORDER BY 1, 2
"""
Name = tuple[str, str]


@dataclass(frozen=True)
class Relation:
    """A table. `partition`: it came along with the partitioned table whose rows it holds."""

    oid: int
    schema: str
    name: str
    partitioned: bool
    logged: bool
    partition: bool

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def place(self) -> Name:
        return self.schema, self.name

    @property
    def quoted(self) -> str:
        """Both parts quoted, or pg_dump reads patterns."""
        return ".".join('"' + part.replace('"', '""') + '"' for part in self.place)

    @property
    def rows_of(self) -> sql.Composed:
        """Name in a FROM: a partitioned table with its partitions, another without children."""
        name = sql.Identifier(*self.place)
        return sql.SQL("{}").format(name) if self.partitioned else sql.SQL("ONLY {}").format(name)


@dataclass(frozen=True)
class Column:
    """A column; `always` and `generated` ones take no value by an UPDATE."""

    name: str
    type: str
    generated: bool
    always: bool
    key: bool


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key of `table`, and where it points."""

    name: str
    definition: str
    valid: bool
    of_partitioned: bool
    schema: str
    table: str
    to_schema: str
    to_table: str
    columns: tuple[str, ...]
    to_columns: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} of {self.schema}.{self.table}"

    @property
    def child(self) -> Name:
        return self.schema, self.table

    @property
    def parent(self) -> Name:
        return self.to_schema, self.to_table


def family(connection: Connection[Any], table: str) -> list[Relation]:
    """Find a table with its partitions and children; ConfigError without one."""
    if not (found := family_if_there(connection, table)):
        raise ConfigError(f"--table {table}: there is no such table in this database")
    return found


def family_if_there(connection: Connection[Any], table: str) -> list[Relation]:
    """Find a table as SQL spells it, or by its plain name where that can mean no other.

    Raises ConfigError where it can.
    """
    by_sql = _by_sql(connection, table)
    plain = dict(connection.execute(_PLAIN, {"table": table}).fetchall())
    meant = set(plain.values()) if by_sql is None else {by_sql}
    if len(meant | set(plain.values())) > 1 and (by_sql is None or table != table.lower()):
        raise ConfigError(
            f"--table {table}: it may mean {' or '.join(plain)}: spell it as SQL does"
        )
    with connection.cursor(row_factory=class_row(Relation)) as cursor:
        return cursor.execute(_WITH_CHILDREN, {"oid": next(iter(meant), None)}).fetchall()


def _by_sql(connection: Connection[Any], table: str) -> int | None:
    try:
        with connection.transaction():
            row = connection.execute("SELECT to_regclass(%s)::oid::bigint", [table]).fetchone()
    except (errors.InvalidName, errors.SyntaxError):  # before PostgreSQL 16: it is no name in SQL
        return None
    return row[0] if row else None


def columns(connection: Connection[Any], oid: int) -> list[Column]:
    """List the columns of a table in their order."""
    with connection.cursor(row_factory=class_row(Column)) as cursor:
        return cursor.execute(_COLUMNS, [oid]).fetchall()


def foreign_keys(connection: Connection[Any], only: Sequence[int]) -> list[ForeignKey]:
    """List foreign keys from and to tables; those of partitions are their root's."""
    with (
        connection.transaction(force_rollback=True),  # the caller's search path stays its own
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        prepare(connection)  # an empty search path makes definitions name every schema
        found = cursor.execute(_FOREIGN_KEYS, {"only": list(only)}).fetchall()
    lists = ("columns", "to_columns")
    return [ForeignKey(**(row | {name: tuple(row[name]) for name in lists})) for row in found]


@dataclass(frozen=True)
class OwnedSequence:
    """A sequence that a column owns: serial, identity or OWNED BY.

    `passed_over` says why its numbers cannot be held against the column, or is None.
    """

    schema: str
    name: str
    of_schema: str
    of_table: str
    column: str
    rising: bool
    least: int
    most: int
    passed_over: str | None

    def __str__(self) -> str:
        return f"sequence {self.schema}.{self.name}"

    def behind(self, connection: Connection[Any]) -> int | None:
        """Return the column's last value if the sequence would give it again, else None.

        A value beyond the limits of the sequence is one that it never gives.
        """
        if self.passed_over is not None:
            return None
        furthest = sql.SQL("max" if self.rising else "min")
        query = sql.SQL(
            "SELECT (SELECT trunc({}({column}))::bigint FROM {} WHERE {column} BETWEEN {} AND {}),"
            " last_value, is_called FROM {}"
        ).format(
            furthest,
            sql.Identifier(self.of_schema, self.of_table),
            self.least,
            self.most,
            sql.Identifier(self.schema, self.name),
            column=sql.Identifier(self.column),
        )
        row = connection.execute(query).fetchone()
        if row is None or row[0] is None:
            return None
        last, value, called = row
        ahead = value - last if self.rising else last - value
        return None if ahead > 0 or (ahead == 0 and called) else int(last)

    def advance(self, connection: Connection[Any], value: int) -> None:
        """Make the sequence go on after a value."""
        name = sql.Identifier(self.schema, self.name).as_string(connection)
        connection.execute("SELECT setval(%s::regclass, %s)", [name, value])


def owned_sequences(
    connection: Connection[Any], only: Sequence[int] | None = None
) -> list[OwnedSequence]:
    """List sequences that columns own; `only` takes oids of tables."""
    with connection.cursor(row_factory=class_row(OwnedSequence)) as cursor:
        return cursor.execute(_SEQUENCES, {"only": only}).fetchall()


def where_same(left: str, right: str, pairs: Sequence[tuple[str, str]]) -> sql.Composed:
    """Spell that columns of two aliases are equal, pair by pair."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left, one), sql.Identifier(right, other))
        for one, other in pairs
    )


def orphans(
    connection: Connection[Any], key: ForeignKey, children: sql.Composable, parents: sql.Composable
) -> str | None:
    """Say which rows of `children` a foreign key would refuse, or None.

    Read before it is needed, because PostgreSQL's own error names one row only.
    """
    mine = sql.SQL(", ").join(sql.Identifier("c", column) for column in key.columns)
    given = sql.SQL(" AND ").join(
        sql.SQL("{} IS NOT NULL").format(sql.Identifier("c", column)) for column in key.columns
    )
    query = sql.SQL(
        "SELECT count(*) OVER (), {mine} FROM {children} c WHERE {given}"
        " AND NOT EXISTS (SELECT FROM {parents} p WHERE {same}) ORDER BY 2 LIMIT 5"
    ).format(
        mine=mine,
        children=children,
        given=given,
        parents=parents,
        same=where_same("c", "p", list(zip(key.columns, key.to_columns, strict=True))),
    )
    found = connection.execute(query).fetchall()
    if not found:
        return None
    keys = "; ".join(", ".join(map(str, row[1:])) for row in found)
    return (
        f"{key}: {found[0][0]} rows have no parent in {key.to_schema}.{key.to_table}: "
        f"({', '.join(key.columns)}) = {keys}" + (" …" if found[0][0] > len(found) else "")
    )
