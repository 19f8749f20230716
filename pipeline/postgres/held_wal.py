"""WAL that the server keeps for a copy: pg_basebackup fetches it at its end, and holds nothing.

`--wal-method=stream` would hold it by a slot, but cannot write into a stream. So the slot is ours:
a temporary one, which reserves WAL from the last checkpoint on. The copy begins with a newer one.
"""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import psycopg
from psycopg import sql

from pipeline.config import PostgresConfig

# an idle connection is what the slot lives by
_SESSION = {"replication": "true", "options": "-c idle_session_timeout=0"}
_CREATE = sql.SQL("CREATE_REPLICATION_SLOT {} TEMPORARY PHYSICAL (RESERVE_WAL)")


@contextmanager
def held_wal(postgres: PostgresConfig) -> Iterator[str | None]:
    """Hold the server's WAL from now on; yield why that could not be, or None.

    The slot ends with this process, however it ends. Without one a copy can still be taken: it is
    whole, or fails for the want of a segment, never in silence.
    """
    name = sql.Identifier(f"pipeline_backup_{secrets.token_hex(4)}")
    with ExitStack() as stack:
        refused: str | None = None
        try:
            connection = psycopg.connect(**postgres.conninfo(**_SESSION), autocommit=True)
            stack.enter_context(closing(connection)).execute(_CREATE.format(name))
        except psycopg.Error as error:
            refused = str(error).strip().splitlines()[0]
        yield refused
