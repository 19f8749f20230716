"""Whether connectors are told to keep what they read: their slot, its position, every change."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from random import Random

from psycopg import sql

from checks.check import Observation, check
from checks.connectors import HISTORY, Connectors
from checks.subjects import SourceServer
from fixtures.connect_material import CONNECTOR
from fixtures.faults import connectors, server
from fixtures.scratch import Damage, Scratch
from pipeline.cdc.pairing import Pair, ServerPosition, classify_pair
from pipeline.cdc.slots import find_slot
from pipeline.postgres.lsn import Lsn

READS_NO_ROWS = {"never", "no_data"}
"""Values of snapshot.mode with which a connector that lost its slot goes on over the gap."""
_NAME = r'(?:\w+|"[^"]+")'
_WRITTEN = re.compile(
    rf"(?i)\b(?:insert\s+into|update(?:\s+only)?|merge\s+into)\s+({_NAME}(?:\.{_NAME})?)"
)


@check(
    "cdc.connectors-keep-their-slot",
    on=Connectors,
    advice="Change the connector's configuration (PUT /connectors/…/config) before it is stopped "
    "or restarted the next time. Where events are missing already: docs/procedures.md, scenario 2.",
)
def connectors_keep_their_slot(connectors: Connectors) -> Iterator[Observation]:
    """Each connector keeps its slot, alone, reads rows without it, and publishes its heartbeats."""
    slot = connectors.source.config.cdc.slot
    read = any(told["slot.name"] == slot for told in connectors.own.values())
    yield Observation(slot, None if read else "no connector reads this slot")
    for name in connectors.names:
        absent = "connect.connectors names it, and Connect has no such connector of a PostgreSQL"
        yield Observation(name, None if name in connectors.own else absent)
    yield from _shared_slots(connectors.every)
    for name, told in connectors.own.items():
        dropped = told.get("slot.drop.on.stop", "false").lower() == "true"
        yield Observation(name, "slot.drop.on.stop: a restart leaves a gap" if dropped else None)
        yield Observation(name, _goes_on_over_a_gap(connectors.source, told))
        yield from heartbeats(connectors.source, name, told)


def _shared_slots(every: Mapping[str, Mapping[str, str]]) -> Iterator[Observation]:
    readers: dict[tuple[str | None, ...], list[str]] = defaultdict(list)
    for name, told in every.items():
        where = ("database.hostname", "database.port", "slot.name")  # a slot's name is the server's
        readers[tuple(told.get(one) for one in where)].append(name)
    for (*_, slot), names in readers.items():
        shared = f"it is of {', '.join(sorted(names))}: the slot lets one of them in"
        yield Observation(slot or "", shared if len(names) > 1 else None)


def _goes_on_over_a_gap(source: SourceServer, told: Mapping[str, str]) -> str | None:
    mode = told.get("snapshot.mode", "initial")
    with source.connection() as connection:
        there = find_slot(connection, told["slot.name"]) is not None
    if there or mode not in READS_NO_ROWS:
        return None
    return f"slot {told['slot.name']} is gone, and with snapshot.mode {mode} no row is read again"


def heartbeats(source: SourceServer, name: str, told: Mapping[str, str]) -> Iterator[Observation]:
    """Where a connector shall write heartbeats: that it does, and that they are published."""
    if not (query := told.get("heartbeat.action.query")):
        return
    never = "heartbeat.action.query never runs: heartbeat.interval.ms is not set, or 0"
    yield Observation(name, None if int(told.get("heartbeat.interval.ms", "0")) else never)
    if (written := _WRITTEN.search(query)) is not None:
        publication = told["publication.name"]
        silent = f"{name} writes its heartbeats there, and publication {publication} lacks it"
        sound = _published(source, written[1], publication)
        yield Observation(written[1], None if sound else silent)


def _published(source: SourceServer, table: str, publication: str) -> bool:
    # by name: an oid asks for a right on the schema, and a bare name for the connector's own path
    return bool(
        source.rows(
            """
            select from pg_publication_tables
             where pubname = %s
               and parse_ident(%s) in (array[tablename::text],
                                       array[schemaname::text, tablename::text])
            """,
            publication,
            table,
        )
    )


@connectors_keep_their_slot.detects
def dropped_at_every_stop(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """A setting for tests, copied with the rest."""
    connectors.reconfigure(scratch, slot_drop_on_stop="true")
    return Damage(CONNECTOR, "slot.drop.on.stop is true")


@connectors_keep_their_slot.detects
def no_rows_without_the_slot(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """Told to stream only, and its slot did not survive a restore."""
    connectors.reconfigure(scratch, snapshot_mode="no_data")
    slot = scratch.config.cdc.slot
    server.execute(scratch, sql.SQL("select pg_drop_replication_slot({})").format(slot))
    return Damage(CONNECTOR, "snapshot.mode is no_data, and the slot was dropped")


@connectors_keep_their_slot.detects
def second_connector_on_the_slot(scratch: Scratch[Connectors], rng: Random) -> Damage:
    """A copy of the connector for a test, which kept the name of the slot."""
    name = f"copy-{rng.randrange(100)}"
    connectors.add_connector(scratch, name, topic_prefix=name)
    return Damage(scratch.config.cdc.slot, f"{name} reads it too")


@connectors_keep_their_slot.detects
def heartbeat_that_nobody_publishes(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """A table for heartbeats that was not added to the publication: the slot never moves."""
    server.execute(scratch, "create table shop.heartbeat (id int primary key, at timestamptz)")
    query = "INSERT INTO shop.heartbeat VALUES (1, now()) ON CONFLICT (id) DO UPDATE SET at = now()"
    connectors.reconfigure(scratch, heartbeat_action_query=query)
    return Damage("shop.heartbeat", "it is not in the publication")


@connectors_keep_their_slot.detects
def heartbeat_that_never_runs(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """A query without the interval that it takes, which is 0 when nobody says otherwise."""
    query = "UPDATE shop.customers SET name = name WHERE id = 1"
    connectors.reconfigure(scratch, heartbeat_action_query=query, heartbeat_interval_ms="0")
    return Damage(CONNECTOR, "heartbeat.interval.ms is 0")


@check(
    "cdc.offsets-fit-their-slots",
    on=Connectors,
    severity="blocker",
    advice="Changes are skipped, without an error: stop the connector, and have it read every row "
    "again (docs/procedures.md, scenario 2).",
)
def offsets_fit_their_slots(connectors: Connectors) -> Iterator[Observation]:
    """Each connector's stored position is in the server's WAL, and its slot is not ahead of it."""
    source = connectors.source
    for name, told in connectors.own.items():
        # in this order: what moves on meanwhile was right before
        with source.connection() as connection:
            slot = find_slot(connection, told["slot.name"])
        offset = connectors.offset(name)
        (row,) = source.rows(
            "select current_database() as database, pg_current_wal_flush_lsn()::text as lsn"
        )
        server = ServerPosition(row["database"], HISTORY, Lsn.parse(row["lsn"]))
        pair = classify_pair(slot, offset, server)
        # before its first event it has none, and begins with every row
        sound = pair in {Pair.SOUND, Pair.NO_OFFSET} or _moved_by_the_driver(pair, told)
        where = slot.confirmed_flush_lsn if slot else None
        told_of = f"{pair}: offset {offset and offset.lsn}, slot {where}, server {server.lsn}"
        yield Observation(name, None if sound else told_of)


def _moved_by_the_driver(pair: Pair, told: Mapping[str, str]) -> bool:
    """Whether the connector lets its driver confirm what holds nothing for it."""
    both = told.get("lsn.flush.mode", "connector") == "connector_and_driver"
    return both and pair is Pair.SLOT_AHEAD


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
    return Damage(CONNECTOR, "its slot begins behind its offset")


@offsets_fit_their_slots.detects
def offset_behind_the_slot(scratch: Scratch[Connectors], rng: Random) -> Damage:
    """Topics of Connect that were restored from an older day than the server's slot."""
    with scratch.copy.source.connection() as connection:
        slot = find_slot(connection, scratch.config.cdc.slot)
    assert slot is not None
    assert slot.confirmed_flush_lsn is not None
    connectors.store_offset(scratch, Lsn(slot.confirmed_flush_lsn - rng.randrange(1, 1 << 16)))
    return Damage(CONNECTOR, "its offset is older than its slot")


@offsets_fit_their_slots.detects
def offset_ahead_of_the_server(scratch: Scratch[Connectors], rng: Random) -> Damage:
    """Recovered to a moment before it: what is written now counts as delivered."""
    connectors.store_offset(scratch, Lsn(_flushed(scratch) + rng.randrange(1 << 20, 1 << 30)))
    return Damage(CONNECTOR, "its offset lies behind the end of the WAL")


def _flushed(scratch: Scratch[Connectors]) -> Lsn:
    (row,) = scratch.copy.source.rows("select pg_current_wal_flush_lsn()::text as lsn")
    return Lsn.parse(row["lsn"])
