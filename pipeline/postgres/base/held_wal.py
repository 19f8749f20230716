"""WAL that the server keeps for a copy: pg_basebackup fetches it at its end, and holds nothing.

`--wal-method=stream` would hold it by a slot, but cannot write into a stream. So the slot is ours:
a temporary one, which reserves WAL from the last checkpoint on. The copy begins with a newer one.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import sql

from pipeline.config import PostgresConfig
from pipeline.errors import ServerError
from pipeline.postgres.server.session import connect
from pipeline.wait import wait_until

_CREATE = sql.SQL("CREATE_REPLICATION_SLOT {} TEMPORARY PHYSICAL (RESERVE_WAL)")


@contextmanager
def held_wal(postgres: PostgresConfig) -> Iterator[str | None]:
    """Hold the server's WAL from now on; yield why that could not be, or None.

    The copy needs a walsender, this can be spared: where there is one only, it is left to the copy.

    The slot ends with this process, however it ends. Without one a copy can still be taken: it is
    whole, or fails for the want of a segment, never in silence.
    """
    name = sql.Identifier(f"pipeline_backup_{secrets.token_hex(4)}")
    connection, refused = None, None
    try:
        connection = connect(postgres, autocommit=True, replication="true")
        connection.execute(_CREATE.format(name))
        _end(postgres, connect(postgres, replication="true"))  # as the copy will
    except psycopg.Error as error:
        refused = str(error).strip().splitlines()[0]
        if connection is not None:
            _end(postgres, connection)
    try:
        yield refused
    finally:
        if connection is not None:
            connection.close()


def _end(postgres: PostgresConfig, connection: psycopg.Connection[Any]) -> None:
    """Close it, and wait until the server has the walsender back: it may have no other."""
    pid = connection.info.backend_pid
    connection.close()

    def ended() -> str | None:
        found = looking.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone()
        return f"process {pid} is still there" if found is not None else None

    with (
        suppress(psycopg.Error, ServerError),  # the copy says by itself what it lacks
        connect(postgres, autocommit=True) as looking,
    ):
        wait_until("end of a replication connection", ended, within=timedelta(seconds=10))
