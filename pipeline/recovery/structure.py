"""The structure of every database of a recovered server, read before clients are let in."""

from typing import Any

import psycopg

from pipeline.config import PostgresConfig
from pipeline.errors import RestoreError
from pipeline.postgres.proof import amcheck


def examine(connection: psycopg.Connection[Any], postgres: PostgresConfig) -> dict[str, Any]:
    """Have amcheck read every database that `connection` tells of; one it cannot read is named.

    Raises RestoreError naming what is damaged, in all of them.
    """
    rows = connection.execute("SELECT datname, datallowconn FROM pg_database ORDER BY 1").fetchall()
    broken, unexamined, read = list[str](), list[str](), dict[str, tuple[int, int]]()
    for name, open_to_us in rows:
        if not open_to_us:
            unexamined.append(f"database {name}: it allows no connections")
            continue
        try:
            with psycopg.connect(**postgres.conninfo(dbname=name), autocommit=True) as there:
                damaged, unread, read[name] = amcheck(there)
        except psycopg.OperationalError as error:
            unexamined.append(f"database {name}: {str(error).strip().splitlines()[-1]}")
            continue
        broken += [f"{one} of database {name}" for one in damaged]
        unexamined += [f"database {name}: {one}" for one in unread]
    if broken:
        raise RestoreError("the restored server is damaged: " + "; ".join(broken))
    indexes = sum(indexes for indexes, _ in read.values())
    heaps = sum(heaps for _, heaps in read.values())
    return {
        "told": f"{indexes} indexes and {heaps} tables are sound, in {', '.join(read)}",
        "databases": list(read),
        "indexes": indexes,
        "heaps": heaps,
        "not_examined": unexamined,
    }
