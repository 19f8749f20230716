"""Who reads a slot: our connectors are stopped by now, so whoever still does is a stranger."""

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


def set_free(connection: Connection, slot: str, terminate: int | None) -> int | None:
    """Wait until nobody reads the slot; end who does only where the operator named the process.

    Raises LossNotAccepted naming it otherwise: what it has read and confirmed is in no topic.
    """

    def read() -> str | None:
        found = holder(connection, slot)
        return f"process {found[0]} reads it: {found[1]}" if found else None

    try:
        wait_until(f"slot {slot!r} to be free", read, within=RELEASES, every=POLL)
    except ServerError:
        if (found := holder(connection, slot)) is None:
            return None
        pid, who = found
        if pid != terminate:
            raise LossNotAccepted(
                f"our connectors are stopped, and slot {slot!r} is still read by process {pid}: "
                f"{who}. End it where it runs; what it confirmed is in no topic",
                f"--terminate-pid {pid}",
            ) from None
        connection.execute("SELECT pg_terminate_backend(%s)", [pid])
        wait_until(f"slot {slot!r} to be free", read, within=RELEASES, every=POLL)
        return pid
    return None
