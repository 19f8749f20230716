"""Who reads a slot: our connectors are stopped by now, so whoever still does is a stranger."""

from contextlib import suppress
from typing import Any

import psycopg

from pipeline.cdc.resnapshot import RELEASES
from pipeline.errors import LossNotAccepted, ServerError
from pipeline.rest import POLL
from pipeline.wait import wait_until

_HOLDER = """
    SELECT s.active_pid, concat_ws(', ', r.application_name, 'of role ' || r.usename,
           'at ' || host(r.client_addr) || ':' || r.client_port, 'since ' || r.backend_start,
           'its last answer ' || r.reply_time)
      FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
     WHERE s.slot_name = %s AND s.active_pid IS NOT NULL
"""
Connection = psycopg.Connection[Any]


def holder(connection: Connection, slot: str) -> tuple[int, str] | None:
    """Name the process that reads a slot, and whose it is."""
    row = connection.execute(_HOLDER, [slot]).fetchone()
    return (row[0], row[1]) if row else None


def lingering(connection: Connection, slot: str) -> tuple[int, str] | None:
    """Name who still reads a slot once a reader that was stopped had time to go."""

    def read() -> str | None:
        found = holder(connection, slot)
        return f"process {found[0]} reads it: {found[1]}" if found else None

    with suppress(ServerError):
        wait_until(f"slot {slot!r} to be free", read, within=RELEASES, every=POLL)
        return None
    return holder(connection, slot)


def set_free(connection: Connection, slot: str, terminate: int | None) -> int | None:
    """Wait until nobody reads the slot; end who does only where the operator named the process.

    Raises LossNotAccepted naming it otherwise: what it has read and confirmed is in no topic.
    """
    if (found := lingering(connection, slot)) is None:
        return None
    pid, who = found
    if pid != terminate:
        raise LossNotAccepted(
            f"our connectors are stopped, and slot {slot!r} is still read by process {pid}: "
            f"{who}. End it where it runs; what it confirmed is in no topic",
            f"--terminate-pid {pid}",
        )
    if _ended(connection, slot, pid):
        return pid
    raise ServerError(
        f"process {pid} was told to end, and waits for its client to take what it was sending: "
        f"{who}. End that client where it runs, or cut its connection; then go on"
    )


def _ended(connection: Connection, slot: str, pid: int) -> bool:
    """Tell the process to end, again and again: the first may find it amid a full socket."""

    def there() -> str | None:
        if (found := holder(connection, slot)) is None or found[0] != pid:
            return None
        connection.execute("SELECT pg_terminate_backend(%s)", [pid])
        return f"process {pid} is there"

    with suppress(ServerError):
        wait_until(f"end of process {pid}", there, within=RELEASES, every=POLL)
        return True
    return False
