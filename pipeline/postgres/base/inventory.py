"""The tables of a database and the files that hold them, noted beside a base backup.

WAL names files, never tables: `find` needs this list to tell whose rows a record changed.
"""

from typing import Any

from psycopg import Connection, sql
from psycopg.rows import dict_row

_TABLES = """
    SELECT n.nspname AS schema, c.relname AS name, c.oid::bigint AS oid,
           pg_relation_filenode(c.oid)::bigint AS relfilenode,
           pg_relation_filenode(nullif(c.reltoastrelid, 0))::bigint AS toast_relfilenode,
           CASE WHEN c.reltuples < 0 THEN NULL ELSE c.reltuples::bigint END AS rows,
           (SELECT i.inhparent::bigint FROM pg_inherits i
             WHERE i.inhrelid = c.oid AND c.relispartition) AS parent,
           c.relpages AS pages
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
       AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
     ORDER BY c.oid
"""


def table_inventory(conn: Connection[Any], *, exact: bool = False) -> list[dict[str, Any]]:
    """User tables of the connected database, partitions included; `rows` is None where unknown.

    Take it before the base backup starts: a file that was replaced earlier than the WAL that
    `find` reads cannot be followed. `exact` counts every table instead of trusting its statistics.
    """
    with conn.cursor(row_factory=dict_row) as cursor:
        tables = cursor.execute(_TABLES).fetchall()
        if exact:
            for table in tables:
                name = sql.Identifier(table["schema"], table["name"])
                counted = cursor.execute(sql.SQL("SELECT count(*) FROM ONLY {}").format(name))
                table["rows"] = (counted.fetchone() or {"count": 0})["count"]
    return tables
