"""What a slot's consumer has not confirmed, and whether it was delivered all the same.

Debezium confirms a transaction with the first event behind it, and a heartbeat is one. With
heartbeat.interval.ms at its default of 0 there is none, and the last transaction of an idle source
stays unconfirmed for ever. What lies behind the confirmed position is therefore decoded, from a
temporary copy of the slot, which writes no WAL and ends with its connection. Connect stores an
offset only when the brokers hold every record up to it: if it names the last published change, all
was delivered.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg

from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.debezium import own_connectors
from pipeline.config import PipelineConfig
from pipeline.errors import ServerError
from pipeline.postgres.replication.publications import as_list, find_publication
from pipeline.postgres.replication.slots import (
    PLUGIN,
    Slot,
    behind,
    find_slot,
    temporary_copy,
)
from pipeline.postgres.server.session import connect
from pipeline.postgres.wal.lsn import Lsn

DECODING = timedelta(seconds=10)
GLANCE = timedelta(seconds=2)
"""How long Connect may be away before its offsets count as not known."""

# Rows that one COPY inserts have one position. An update that comes with the old row (no N behind
# the relation) may have changed the key, and is two events with one offset; of a truncation or a
# message there may be none: no offset tells of these.
_LAST = """
    WITH changes AS (
        SELECT lsn, xid::text::bigint AS xid, chr(get_byte(data, 0)) AS kind, data, number
        FROM pg_logical_slot_peek_binary_changes(
            %(copy)s, %(until)s::pg_lsn, NULL,
            'proto_version', '1', 'publication_names', %(publication)s)
            WITH ORDINALITY AS peeked (lsn, xid, data, number)
    ), told AS (SELECT * FROM changes WHERE kind NOT IN ('B', 'C', 'R', 'Y', 'O'))
    SELECT lsn::text, xid, kind IN ('I', 'D') OR kind = 'U' AND get_byte(data, 5) = ascii('N'),
           (SELECT count(*) FROM told other WHERE (other.lsn, other.xid) = (told.lsn, told.xid)),
           (SELECT encode(substring(c.data FROM 3 FOR 8), 'hex') FROM changes c
             WHERE c.kind = 'C' AND c.xid = told.xid)
    FROM told ORDER BY number DESC LIMIT 1
"""


@dataclass(frozen=True)
class Change:
    """The last change that a consumer is owed: `events` of its transaction have its position."""

    lsn: Lsn
    xid: int
    whole: bool
    """Whether an offset that names it says that all of it was sent."""
    events: int
    committed: int | None
    """Where its transaction's commit record is; a message may be of none."""

    def is_behind(self, offset: Mapping[str, Any]) -> bool:
        """Whether an offset says that this change was sent."""
        ended = offset.get("lsn_commit")
        if isinstance(ended, int) and self.committed is not None and ended >= self.committed:
            return True
        at = (offset.get("lsn_proc"), offset.get("txId"))
        events = offset.get("lsn_events_processed", 0)
        return self.whole and at == (int(self.lsn), self.xid) and events >= self.events


@dataclass(frozen=True)
class Unconfirmed:
    """What lies behind the position that the consumer confirmed; no `last` where nothing does."""

    confirmed: Lsn
    last: Change | None

    def stored(self, config: PipelineConfig) -> bool:
        """Whether Connect has stored an offset behind the last change; False where it cannot tell.

        That of its transaction's end, or of a later one, is behind it.
        """
        if self.last is None:
            return False
        try:
            with ConnectClient(config.connect, GLANCE) as client:
                own = own_connectors(config, client)
                offsets = [one.offset for name in own for one in client.offsets(name)]
        except ServerError:
            return False
        last = self.last
        return any(last.is_behind(one) for one in offsets)


def delivery(
    config: PipelineConfig, connection: psycopg.Connection[Any], until: Lsn
) -> Callable[[], str | None]:
    """Tell why not every event up to `until` is known to be in Kafka: a condition of wait_until.

    Take `until` right after a commit that was flushed: what lies between it and what is confirmed
    stays the same then, and is decoded once for each confirmed position.
    """
    looked: dict[Lsn | None, Unconfirmed | None] = {}

    def undelivered() -> str | None:
        if (why := behind(connection, config.cdc.slot, until)) is None:
            return None
        if (slot := find_slot(connection, config.cdc.slot)) is None:
            return why
        if slot.confirmed_flush_lsn not in looked:
            looked[slot.confirmed_flush_lsn] = unconfirmed(config, slot, until)
        waiting = looked[slot.confirmed_flush_lsn]
        known = waiting is not None and (waiting.last is None or waiting.stored(config))
        return None if known else why

    return undelivered


def unconfirmed(config: PipelineConfig, slot: Slot, until: Lsn) -> Unconfirmed | None:
    """What the slot's consumer has not confirmed up to `until`.

    None where that cannot be asked: the plugin is another, a right or a free slot is missing, the
    publication is gone, or decoding takes longer than DECODING.
    """
    if slot.plugin != PLUGIN:
        return None
    limit = {"statement_timeout": f"{int(DECODING.total_seconds() * 1e3)}"}
    try:
        with connect(
            config.postgres, autocommit=True, settings=limit, dbname=slot.database
        ) as connection:
            # from PostgreSQL 18 on, one that is missing is passed over with a warning
            if find_publication(connection, config.cdc.publication) is None:
                return None
            return _decoded(connection, slot.name, config.cdc.publication, until)
    except psycopg.Error:
        return None


def _decoded(
    connection: psycopg.Connection[Any], slot: str, publication: str, until: Lsn
) -> Unconfirmed | None:
    asked = {"until": str(until), "publication": as_list(publication)}
    with temporary_copy(connection, slot) as copy:
        found = find_slot(connection, copy)
        row = connection.execute(_LAST, asked | {"copy": copy}).fetchone()
    if found is None or found.confirmed_flush_lsn is None:
        return None
    if row is None:
        return Unconfirmed(found.confirmed_flush_lsn, None)
    lsn, xid, whole, events, ended = row
    committed = None if ended is None else int(ended, 16)
    last = Change(Lsn.parse(lsn), xid, whole, events, committed)
    return Unconfirmed(found.confirmed_flush_lsn, last)
