"""Prepared transactions: they outlive their session, and hold up whatever waits for all to end."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
from psycopg.rows import class_row

_PREPARED = """
    SELECT gid, transaction::text::bigint AS xid, owner::text AS owner,
           database::text AS database, prepared::text AS since,
           clock_timestamp() - prepared AS age
      FROM pg_prepared_xacts ORDER BY prepared
"""


@dataclass(frozen=True)
class PreparedTransaction:
    """A transaction of any database that was prepared, and neither committed nor rolled back."""

    gid: str
    xid: int
    owner: str
    database: str
    since: str
    age: timedelta

    def __str__(self) -> str:
        return (
            f"prepared transaction {self.gid!r} of {self.owner} in database {self.database}, "
            f"open since {self.since}"
        )


def prepared_transactions(connection: psycopg.Connection[Any]) -> list[PreparedTransaction]:
    """List those of the whole server, the oldest first."""
    with connection.cursor(row_factory=class_row(PreparedTransaction)) as cursor:
        return cursor.execute(_PREPARED).fetchall()
