"""A table that was renamed since the target is not the one that has its name now.

A table keeps its OID for life, so where a physical copy of the server is at hand the OID tells.
"""

from collections.abc import Sequence
from typing import Any

import psycopg

from pipeline.errors import RestoreError
from pipeline.postgres.logical.relations import family

_NOW = """
    SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE c.oid = %s AND c.relkind IN ('r', 'p') AND (n.nspname, c.relname) <> (%s, %s)
        AND to_regclass(%s) IS NOT NULL
"""


def refuse_renamed(
    live: psycopg.Connection[Any], side: psycopg.Connection[Any], tables: Sequence[str]
) -> None:
    """Raise RestoreError where a table has another name now, and another table has taken its own.

    Where nothing has taken it, the table was moved out of the way, and is made again.
    """
    for table in tables:
        for one in family(side, table):
            row = live.execute(_NOW, [one.oid, *one.place, one.quoted]).fetchone()
            if row is not None:
                raise RestoreError(
                    f"what was {one} at the target is {row[0]} now, and {one} is another table, "
                    "into which the rows would go. Rename them back, or move both into a schema of "
                    "their own (ALTER TABLE … SET SCHEMA …): it is then made again"
                )
