"""Rows are read again in chunks while the connector streams: an incremental snapshot, by signal.

It begins at the slot: the offset is patched to where the slot stands, while the connector is
STOPPED, and read back. Then the stream goes on at once, where a re-read from the start would let
events wait until every row was read. Deletions are told by neither way: ghosts are buried after it.

It is over when an offset behind the signal is stored and names no incremental snapshot any more.
"""

import json
import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

from psycopg import sql

from pipeline.cdc.connectors import ConnectClient, ConnectorOffset
from pipeline.cdc.debezium import DEFAULTS
from pipeline.cdc.names import unquoted
from pipeline.errors import ServerError
from pipeline.postgres.replication.advance import flushed
from pipeline.postgres.replication.slots import Connection, find_slot
from pipeline.postgres.wal.lsn import Lsn
from pipeline.rest import POLL
from pipeline.wait import wait_until

WITHIN = timedelta(minutes=30)
POSITION = ("lsn", "lsn_commit", "lsn_proc")
_UNDER_WAY = "incremental_snapshot"


def read_again(client: ConnectClient, connection: Connection, name: str, slot: str) -> None:
    """Have a STOPPED connector go on at its slot, and read every row beside the stream."""
    settings = DEFAULTS | client.config(name)
    patch(client, name, settings["topic.prefix"], _begins(connection, slot))
    client.resume(name)
    client.wait_running(name)
    signals = settings["signal.data.collection"]
    since = _signal(connection, signals, _tables(connection, settings, signals))
    what = f"{client.url}: {name} read every row beside the stream"
    wait_until(what, lambda: _unfinished(client, name, since), within=WITHIN, every=POLL)


def patch(client: ConnectClient, name: str, prefix: str, lsn: Lsn) -> None:
    """Say that everything up to there was delivered, and read back that it is stored."""
    stored = {"server": prefix}
    wanted: dict[str, Any] = {"messageType": "COMMIT", **dict.fromkeys(POSITION, int(lsn))}
    for last in (one.offset for one in client.offsets(name) if one.partition == stored):
        wanted |= {key: last[key] for key in ("txId", "ts_usec") if key in last}
    client.patch_offsets(name, [ConnectorOffset(stored, wanted)])
    found = [one.offset for one in client.offsets(name) if one.partition == stored]
    if found != [wanted]:
        raise ServerError(f"{client.url}: {name} stores {found} after PATCH, expected {wanted}")


def _begins(connection: Connection, slot: str) -> Lsn:
    found = find_slot(connection, slot)
    if found is None or found.lost or found.confirmed_flush_lsn is None:
        raise ServerError(f"slot {slot!r} has no position to go on from: {found}")
    return found.confirmed_flush_lsn


def _tables(connection: Connection, settings: dict[str, str], signals: str) -> list[str]:
    """Tables that are published, but for that of the signals, as regular expressions."""
    rows = connection.execute(
        "SELECT schemaname || '.' || tablename FROM pg_publication_tables WHERE pubname = %s"
        " ORDER BY 1",
        [settings["publication.name"]],
    )
    return [re.escape(table) for (table,) in rows if table != unquoted(signals)]


def _signal(connection: Connection, signals: str, tables: list[str]) -> Lsn:
    """Ask for the snapshot; where the WAL stands behind that."""
    data: dict[str, Any] = {"type": "incremental", "data-collections": tables}
    place = sql.Identifier(*unquoted(signals).split(".", 1))
    connection.execute(
        sql.SQL("INSERT INTO {} VALUES (%s, 'execute-snapshot', %s)").format(place),
        [str(uuid4()), json.dumps(data)],
    )
    return flushed(connection)


def _unfinished(client: ConnectClient, name: str, since: Lsn) -> str | None:
    if trouble := client.status(name).trouble:
        return trouble
    for stored in client.offsets(name):
        if any(key.startswith(_UNDER_WAY) for key in stored.offset):
            return f"incremental snapshot in progress: {stored.offset}"
        if int(stored.offset.get("lsn", 0)) < since:
            return f"the offset {Lsn(stored.offset.get('lsn', 0))} is before the signal, {since}"
    return None
