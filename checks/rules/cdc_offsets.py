"""Whether the positions that Connect stores belong to the slots that they are read from."""

import struct
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from random import Random

from psycopg import sql

from checks.check import Observation, check
from checks.connectors import READS_NO_ROWS, Connectors
from checks.subjects import SourceServer
from fixtures.connect_material import connector
from fixtures.faults import connectors, server
from fixtures.scratch import Damage, Scratch
from pipeline.cdc.state.classify import classify
from pipeline.cdc.state.connect import Connector
from pipeline.postgres.replication.slots import Slot, find_slot
from pipeline.postgres.wal.lsn import Lsn

APART = {"S01", "S03", "S04", "S06", "S16", "S18", "S19", "S20", "S23"}
"""States in which slot and offset do not belong together, as far as positions tell."""
ORDER = 100_000
"""Commits may stand in the WAL in another order than their times, so many microseconds apart."""
EPOCH = round(datetime(2000, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
PATIENCE = "60s"
"""How long a slot that stands still may take to be looked through."""
_BEGINS = """
    select data from pg_logical_slot_peek_binary_changes(
               %s, %s, null, 'proto_version', '1', 'publication_names', %s)
     where get_byte(data, 0) = ascii('B') order by substring(data from 2 for 8) desc limit 1
"""


@check(
    "cdc.offsets-fit-their-slots",
    on=Connectors,
    severity="blocker",
    advice="Changes are skipped, without an error: stop the connector, and have it read every row "
    "again (docs/procedures.md, scenario 2).",
)
def offsets_fit_their_slots(connectors: Connectors) -> Iterator[Observation]:
    """Each stored position is in the server's WAL, after its slot's, and over nothing unsent."""
    reading = connectors.reading()
    verdicts = {verdict.name: verdict for verdict in classify(reading, None).verdicts}
    for name in connectors.own:
        apart = [one for one in verdicts[name].findings if one.state.id in APART]
        yield Observation(name, None)
        yield from (Observation(name, f"{one.state.title}: {one.said}") for one in apart)
        connector = reading.known(name)
        slot = reading.slot(connector.slot) if connector else None
        if connector and not connector.mine:
            yield Observation(name, _begins_with_a_gap(connector.config))
        elif connector and slot and connector.lsn and not apart and not slot.active:
            time = connector.mine[0].offset.get("ts_usec", 0)
            told = _skipped(connectors.source, slot, connector, connector.lsn, time)
            yield Observation(name, told)


def _begins_with_a_gap(told: Mapping[str, str]) -> str | None:
    """Before its first event a connector has no offset, and begins with every row, or none."""
    mode = told.get("snapshot.mode", "initial")
    gap = f"it has no offset, and with snapshot.mode {mode} it reads no row: what was written "
    return gap + "before is in no event of it" if mode in READS_NO_ROWS else None


def _skipped(
    source: SourceServer, slot: Slot, connector: Connector, offset: Lsn, time: int
) -> str | None:
    """What the slot still holds, and the offset takes for delivered although it is older.

    A connector notes with a position when its last transaction was committed. What the slot was
    not told of yet may well be in the topics, but then that time is not before it.
    """
    last = _last_published(source, slot, connector.publication, offset)
    if last is None or last <= time + ORDER:
        return None
    when, noted = (datetime.fromtimestamp(each / 1e6, UTC) for each in (last, time))
    return (
        f"offset {offset} is over a transaction of {when:%F %T} that slot {slot.name} still "
        f"holds, and the last that it tells as delivered is of {noted:%F %T}: it is skipped"
    )


def _last_published(source: SourceServer, slot: Slot, publication: str, upto: Lsn) -> int | None:
    """When the last published transaction up to there was committed, of those a slot holds.

    In microseconds, as Debezium's `ts_usec`. pgoutput sends no transaction without a change.
    """
    with source.connection() as connection:
        connection.execute(sql.SQL("set local statement_timeout = {}").format(PATIENCE))
        row = connection.execute(_BEGINS, [slot.name, str(upto), publication]).fetchone()
    if row is None:
        return None
    # logical replication message formats: B, LSN of the commit, its time, xid
    _, committed = struct.unpack_from(">qq", row[0], 1)
    return int(committed) + EPOCH


@offsets_fit_their_slots.detects
def slot_made_again_later(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """Dropped and made anew by hand: what was written in between is in no event."""
    slot = scratch.config.cdc.slot
    connectors.store_offset(scratch, _flushed(scratch))
    server.execute(
        scratch,
        "insert into shop.orders (customer, note) values (1, 'in no event')",
        sql.SQL("select pg_drop_replication_slot({})").format(slot),
        sql.SQL("select pg_create_logical_replication_slot({}, 'pgoutput')").format(slot),
    )
    return Damage(
        connector(scratch.config), "its slot begins behind its offset", says="ahead of the offset"
    )


@offsets_fit_their_slots.detects
def offset_behind_the_slot(scratch: Scratch[Connectors], rng: Random) -> Damage:
    """Topics of Connect that were restored from an older day than the server's slot."""
    with scratch.copy.source.connection() as connection:
        slot = find_slot(connection, scratch.config.cdc.slot)
    assert slot is not None
    assert slot.confirmed_flush_lsn is not None
    connectors.store_offset(scratch, Lsn(slot.confirmed_flush_lsn - rng.randrange(1, 1 << 16)))
    return Damage(
        connector(scratch.config), "its offset is older than its slot", says="ahead of the offset"
    )


@offsets_fit_their_slots.detects
def offset_moved_over_events(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """A connector that failed at one event, and was told by hand to go on behind it."""
    connectors.stop(scratch)
    server.execute(scratch, "insert into shop.orders (customer, note) values (1, 'in no event')")
    connectors.move_offset(scratch, _flushed(scratch))
    return Damage(connector(scratch.config), "its offset was set forwards", says="it is skipped")


@offsets_fit_their_slots.detects
def offset_deleted_without_a_snapshot(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """Begun anew where the WAL ends, to be rid of an error."""
    connectors.stop(scratch)
    connectors.reconfigure(scratch, snapshot_mode="no_data")
    with connectors.own(scratch) as client:
        client.delete_offsets(connector(scratch.config))
    return Damage(connector(scratch.config), "its offset is gone", says="it has no offset")


@offsets_fit_their_slots.detects
def offset_ahead_of_the_server(scratch: Scratch[Connectors], rng: Random) -> Damage:
    """Recovered to a moment before it: what is written now counts as delivered."""
    connectors.store_offset(scratch, Lsn(_flushed(scratch) + rng.randrange(1 << 20, 1 << 30)))
    what = "its offset lies behind the end of the WAL"
    return Damage(connector(scratch.config), what, says="ahead of the server")


def _flushed(scratch: Scratch[Connectors]) -> Lsn:
    (row,) = scratch.copy.source.rows("select pg_current_wal_flush_lsn()::text as lsn")
    return Lsn.parse(row["lsn"])
