"""The catalogue guard: a physical slot that keeps dead rows of the catalogues, and no WAL.

A lost slot's changes can be decoded again only with the catalogues as they were. While a logical
slot lives it holds them; once it is lost nobody does, but a guard: its reader, as a standby would,
tells the server which transaction its catalogues must still show (manual, 54.4, hot standby
feedback). Without a position of its own the slot is never invalidated, and fills no disk.
"""

import struct
from contextlib import closing
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import ExecStatus

from pipeline.config import PostgresConfig
from pipeline.errors import ServerError
from pipeline.postgres.server.session import connect
from pipeline.wait import wait_until

_WITHIN = timedelta(seconds=10)
_FEEDBACK = struct.Struct("!cqIIII")  # a clock for monitoring, xmin, catalog_xmin; each with epoch
_SLOT = """
    SELECT slot_type, restart_lsn::text, catalog_xmin::text FROM pg_replication_slots
     WHERE slot_name = %s
"""
_START = sql.SQL("START_REPLICATION SLOT {} PHYSICAL {} TIMELINE {}")


def held(connection: psycopg.Connection[Any], name: str) -> int | None:
    """The transaction id that the guard holds, without its epoch; None where it holds nothing.

    Raises ServerError for a slot of that name that is something else.
    """
    row = connection.execute(_SLOT, [name]).fetchone()
    if row is None:
        return None
    kind, restart_lsn, xmin = row
    if kind != "physical" or restart_lsn is not None:
        raise ServerError(
            f"slot {name!r} is a {kind} slot at {restart_lsn}, expected one that keeps no WAL: "
            "cdc.catalogue_guard must name a slot that nothing else uses"
        )
    return None if xmin is None else int(xmin)


def current(connection: psycopg.Connection[Any]) -> int:
    """The oldest transaction that runs, with its epoch: what a guard holds that begins now."""
    row = connection.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text").fetchone()
    if row is None:
        raise ServerError("the server did not answer pg_current_snapshot()")
    return int(row[0])


def hold(connection: psycopg.Connection[Any], postgres: PostgresConfig, name: str, xid: int) -> int:
    """Hold the catalogues as of a transaction, and answer what is held: that never moves back.

    A crash forgets it until the next checkpoint, as that of a base backup.
    """
    before = held(connection, name)
    if connection.execute(_SLOT, [name]).fetchone() is None:
        connection.execute("SELECT pg_create_physical_replication_slot(%s)", [name])
    with closing(connect(postgres, autocommit=True, replication="true")) as walsender:
        row = walsender.execute("IDENTIFY_SYSTEM").fetchone()
        if row is None:
            raise ServerError("the server did not answer IDENTIFY_SYSTEM")
        command = _START.format(sql.Identifier(name), sql.SQL(row[2]), sql.SQL(str(row[1])))
        pgconn = walsender.pgconn
        pgconn.nonblocking = 0
        begun = pgconn.exec_(command.as_bytes(walsender))
        if begun.status != ExecStatus.COPY_BOTH:
            told = begun.error_message.decode(errors="replace").strip()
            raise ServerError(f"catalogue guard {name!r}: {told}")
        low, epoch = xid & 0xFFFFFFFF, xid >> 32
        pgconn.put_copy_data(_FEEDBACK.pack(b"h", 0, 0, 0, low, epoch))
        pgconn.flush()

        def moved() -> str | None:
            now = held(connection, name)
            return None if now == low or (before and now == before) else f"it holds {now}"

        wait_until(f"catalogue guard {name!r} at {xid}", moved, within=_WITHIN)
    return held(connection, name) or 0
