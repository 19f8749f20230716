"""Subscriptions of a restored server: held still, or it would take what a publisher keeps for it.

A slot of the publisher confirms what the one who asks says it has. Another server that asks for
it, or the same one at an earlier moment, loses rows for good; so a recovery disables subscriptions
before anything can run, and enables those that were enabled when clients are let in.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import sql

_ENABLED = """
    SELECT d.datname::text, s.subname::text FROM pg_subscription s
      JOIN pg_database d ON d.oid = s.subdbid WHERE s.subenabled AND d.datallowconn ORDER BY 1, 2
"""


class Subscription(NamedTuple):
    """A subscription by its database and name, which is unique only there."""

    database: str
    name: str

    def __str__(self) -> str:
        return f"{self.database}.{self.name}"


def enabled(connection: psycopg.Connection[Any]) -> list[Subscription]:
    """Name every subscription of every database that would run.

    Write it down before `disable`: afterwards nobody knows which of them were.
    """
    return [Subscription(*row) for row in connection.execute(_ENABLED).fetchall()]


def disable(connection: psycopg.Connection[Any], which: Iterable[Subscription]) -> None:
    """Disable subscriptions, as superuser; can be repeated, and asks no publisher."""
    for one in which:
        _alter(connection, one, "ALTER SUBSCRIPTION {} DISABLE")


def enable(
    connection: psycopg.Connection[Any], which: Iterable[Subscription]
) -> list[Subscription]:
    """Enable subscriptions again; return those that are not there any more."""
    return [one for one in which if not _alter(connection, one, "ALTER SUBSCRIPTION {} ENABLE")]


def _alter(
    connection: psycopg.Connection[Any], one: Subscription, statement: LiteralString
) -> bool:
    with _beside(connection, one.database) as there:
        known = "SELECT FROM pg_subscription WHERE subname = %s AND subdbid = (SELECT oid FROM"
        known += " pg_database WHERE datname = current_database())"
        if there.execute(known, [one.name]).fetchone() is None:
            return False
        there.execute(sql.SQL(statement).format(sql.Identifier(one.name)))
    return True


@contextmanager
def _beside(
    connection: psycopg.Connection[Any], database: str
) -> Iterator[psycopg.Connection[Any]]:
    """Connect to another database of the same server, as the same role."""
    info = connection.info
    keywords: dict[str, Any] = {**info.get_parameters(), "dbname": database}
    if info.password:
        keywords["password"] = info.password
    with psycopg.connect(**keywords, autocommit=True) as beside:
        yield beside
