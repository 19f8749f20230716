"""Statements that wait for what clients hold, without harm to those clients."""

from datetime import timedelta
from typing import Any

from psycopg import Connection, Cursor, errors, sql

from pipeline.wait import wait_until

PATIENCE = "900ms"
"""Below deadlock_timeout: nobody is chosen as the victim of a deadlock, neither they nor we."""
LOCK_WITHIN = timedelta(seconds=60)


def patiently(
    live: Connection[Any],
    what: str,
    statement: sql.Composed,
    *,
    patience: str = PATIENCE,
    within: timedelta = LOCK_WITHIN,
) -> Cursor[Any]:
    """Try a statement again and again, never queueing long: others wait behind who waits.

    An attempt gives up where one lock takes longer than `patience`; it then had no effect, and
    holds nothing. Raises ServerError when all were in vain for `within`.
    """
    done: list[Cursor[Any]] = []

    def tried() -> str | None:
        try:
            with live.transaction():
                live.execute("SELECT set_config('lock_timeout', %s, true)", [patience])
                done.append(live.execute(statement))
        except errors.LockNotAvailable as error:
            return str(error).strip()
        return None

    wait_until(what, tried, within=within)
    return done[0]
