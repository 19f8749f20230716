"""Whether connectors are told to keep what they read: their slot, and a way back without it."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from random import Random

from psycopg import sql

from checks.check import Observation, check
from checks.connectors import READS_NO_ROWS, Connectors
from checks.subjects import SourceServer
from fixtures.connect_material import connector
from fixtures.faults import connectors, server
from fixtures.scratch import Damage, Scratch
from pipeline.postgres.replication.slots import find_slot

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
    return Damage(connector(scratch.config), "slot.drop.on.stop is true", says="slot.drop.on.stop")


@connectors_keep_their_slot.detects
def no_rows_without_the_slot(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """Told to stream only, and its slot did not survive a restore."""
    connectors.stop(scratch)
    connectors.reconfigure(scratch, snapshot_mode="no_data")
    slot = scratch.config.cdc.slot
    server.execute(scratch, sql.SQL("select pg_drop_replication_slot({})").format(slot))
    return Damage(
        connector(scratch.config),
        "snapshot.mode is no_data, and the slot was dropped",
        says="no row is read again",
    )


@connectors_keep_their_slot.detects
def second_connector_on_the_slot(scratch: Scratch[Connectors], rng: Random) -> Damage:
    """A copy of the connector for a test, which kept the name of the slot."""
    name = f"copy-{rng.randrange(100)}"
    connectors.add_connector(scratch, name, topic_prefix=name)
    return Damage(scratch.config.cdc.slot, f"{name} reads it too", says="lets one of them in")


@connectors_keep_their_slot.detects
def heartbeat_that_nobody_publishes(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """A table for heartbeats that was not added to the publication: the slot never moves."""
    server.execute(scratch, "create table shop.heartbeat (id int primary key, at timestamptz)")
    query = "INSERT INTO shop.heartbeat VALUES (1, now()) ON CONFLICT (id) DO UPDATE SET at = now()"
    connectors.reconfigure(scratch, heartbeat_action_query=query)
    return Damage("shop.heartbeat", "it is not in the publication", says="lacks it")


@connectors_keep_their_slot.detects
def heartbeat_that_never_runs(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """A query without the interval that it takes, which is 0 when nobody says otherwise."""
    query = "UPDATE shop.customers SET name = name WHERE id = 1"
    connectors.reconfigure(scratch, heartbeat_action_query=query, heartbeat_interval_ms="0")
    return Damage(connector(scratch.config), "heartbeat.interval.ms is 0", says="never runs")
