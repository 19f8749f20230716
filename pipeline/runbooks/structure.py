"""The structure of every database of a recovered server, read before clients are let in."""

from collections.abc import Callable
from typing import Any

import psycopg

from pipeline.config import PostgresConfig
from pipeline.errors import RestoreError
from pipeline.postgres.server.amcheck import LIMITS, amcheck
from pipeline.postgres.server.session import connect

# asked of the server, because the words of a refused connection come in the server's language
_DATABASES = """
    SELECT datname, CASE WHEN NOT datallowconn THEN 'it allows no connections'
                         WHEN datconnlimit = -2 THEN 'it is invalid, its DROP was interrupted'
                         WHEN NOT has_database_privilege(oid, 'CONNECT')
                         THEN 'CONNECT is not granted on it' END
      FROM pg_database ORDER BY 1
"""


def examine(
    connection: psycopg.Connection[Any], postgres: PostgresConfig, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Have amcheck read every database that `connection` tells of; one it cannot read is named.

    Raises RestoreError naming what is damaged, in all of them.
    """
    broken, unexamined, read = list[str](), list[str](), dict[str, tuple[int, int]]()
    for name, closed in connection.execute(_DATABASES).fetchall():
        if closed:
            unexamined.append(f"database {name}: {closed}")
            continue
        try:
            damaged, unread, sound = _examined(postgres, name)
        except (psycopg.Error, RestoreError) as error:
            broken.append(f"database {name}: {str(error).strip()}")
            continue
        broken += [f"{one} of database {name}" for one in damaged]
        unexamined += [f"database {name}: {one}" for one in unread if one != LIMITS]
        if LIMITS not in unread:  # then nothing of it was
            continue
        read[name] = sound
        progress(f"  {name}: {sound[0]} indexes and {sound[1]} tables are sound")
    if broken:
        raise RestoreError("the restored server is damaged: " + "; ".join(broken))
    return {
        "databases": list(read),
        "indexes": sum(indexes for indexes, _ in read.values()),
        "heaps": sum(heaps for _, heaps in read.values()),
        "not_examined": [*unexamined, LIMITS],
    }


def _examined(postgres: PostgresConfig, name: str) -> tuple[list[str], list[str], tuple[int, int]]:
    with connect(postgres, dbname=name, autocommit=True) as there:
        return amcheck(there)
