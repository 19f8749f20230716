"""What must hold before a recovery of CDC stops a connector or touches a slot."""

from collections.abc import Iterable, Iterator, Sequence

import psycopg
from psycopg import sql

from pipeline.cdc import needs, remade
from pipeline.cdc.needs import Wanted
from pipeline.cdc.state.connect import REFERENCE
from pipeline.cdc.state.parts import OF_CONNECT, Part
from pipeline.cdc.state.reading import Reading
from pipeline.config import PipelineConfig
from pipeline.kafka.cluster.topics import cluster_id
from pipeline.postgres.server.session import connect
from pipeline.registry.client import RegistryClient
from pipeline.repository.journal import Journal
from pipeline.runbooks import cdc_tables, held_connectors, redelivery
from pipeline.runbooks.cdc_asked import Way
from pipeline.runbooks.cdc_evidence import Evidence
from pipeline.runbooks.cdc_holder import lingering
from pipeline.runbooks.runbook import Precondition

_READ = (Part.SERVER, Part.SLOTS, Part.PUBLICATIONS, *OF_CONNECT)


def listed(seen: Evidence, unfinished: Iterable[Journal]) -> Sequence[Precondition]:
    """List them in the order in which their steps come.

    `unfinished` were to read rows again: what they mended since looks sound, and events are missing
    all the same.
    """
    config, asked, now = seen.config, seen.asked, seen.now

    def no_other() -> Iterator[str]:
        for other in unfinished:
            yield (
                f"{other.recovery} found that rows must be read again, and did not come to that: "
                f"pipeline recover cdc --resume {other.recovery}"
            )

    def read() -> Iterator[str]:
        yield from (str(one) for one in now.misses(_READ, seen.names))

    def stranger() -> Iterator[str]:
        """A reader that is there although no task of ours runs is named before anything stops."""
        ours = any(t.state == "RUNNING" for each in now.connectors if each.own for t in each.tasks)
        if ours:
            return
        with connect(config.postgres, autocommit=True) as connection:
            found = lingering(connection, config.cdc.slot)
        if found is not None and found[0] != asked.terminate:
            pid, who = found
            yield f"slot {config.cdc.slot!r} is read by process {pid}, {who}; no task of ours runs"

    def kafka() -> Iterator[str]:
        cluster_id(config.kafka)
        yield from ()

    def registry() -> Iterator[str]:
        if config.registry.url:
            with RegistryClient(config.registry) as client:
                client.subjects()
        yield from ()

    return (
        Precondition("state", read, "Nothing is decided by what was not read: start or grant it"),
        Precondition(
            "no-other-recovery",
            no_other,
            "What it mended looks sound, and tells no more that events are missing",
            "--way reread",
        ),
        held_connectors.precondition(config, "cdc"),
        server(now),
        slot_of_others(config, now),
        Precondition("reader", stranger, "End it where it runs", "--terminate-pid with its number"),
        Precondition(
            "connectors",
            lambda: remade.unnamed(config, now, seen.known, asked.secrets or {}),
            "Create it, name another set by --from, or give a masked setting by --secret NAME=FILE",
        ),
        publication(config, seen.wish),
        room(config, now),
        *cdc_tables.listed(seen),
        Precondition(
            "signal",
            lambda: _signal(now) if asked.way is Way.SIGNAL else (),
            "Name one by signal.data.collection, publish it and grant it; or leave --way signal",
        ),
        Precondition(
            "redecode",
            lambda: _exactly(seen) if asked.way is Way.REDECODE else (),
            "Where it cannot be mended, what is left is to leave --way redecode",
        ),
        Precondition("kafka", kafka, "Start it: topics are compared with their tables"),
        Precondition("registry", registry, "Start it; or registry.url = '' where there is none"),
    )


def _exactly(seen: Evidence) -> Iterator[str]:
    """What is missing can be decoded again."""
    found = seen.needs(seen.now)
    if any(need.reread for need in found):
        yield from redelivery.obstacles(seen.config, seen.now, found)


def server(now: Reading) -> Precondition:
    """The server can decode, and takes a publication."""
    return Precondition("server", lambda: _server(now), "Slots are made on a primary that decodes")


def slot_of_others(config: PipelineConfig, now: Reading) -> Precondition:
    """What has the name of our slot is ours, and ours alone."""
    advice = (
        "It is not ours to touch: rename ours by cdc.slot, or remove the other reader; one of "
        "another server with the same names is none once ours are named by connect.connectors"
    )
    return Precondition("slot", lambda: needs.strangers(config, now), advice)


def publication(config: PipelineConfig, wish: Wanted) -> Precondition:
    """What the publication shall name is there."""
    advice = "Name a set that fits by --from, or leave the publication as it is: --keep-publication"
    return Precondition("publication", lambda: _publication(config, wish), advice)


def room(config: PipelineConfig, now: Reading) -> Precondition:
    """A new slot has a place."""
    advice = "Raise max_replication_slots, or drop one by hand"
    return Precondition("room", lambda: _room(config, now), advice)


def _signal(now: Reading) -> Iterator[str]:
    """Each connector hears of a table, and may write to it."""
    for each in (each for each in now.connectors if each.own):
        if REFERENCE in (prefix := each.config.get("topic.prefix", "")):
            yield f"connector {each.name!r} has topic.prefix {prefix}: no offset can be set by it"
        told = [t for t in now.service_tables if (t.connector, t.use) == (each.name, "signals")]
        if not told:
            yield f"connector {each.name!r} has no table for signals"
        for table in told:
            if not (table.present and table.published) or table.lacks:
                lacks = ", ".join(table.lacks) or "it is not there, or not published"
                yield f"connector {each.name!r} cannot use {table.table}: {lacks}"


def _server(now: Reading) -> Iterator[str]:
    if now.server is None:
        return
    if now.server.in_recovery:
        yield "the server is a standby"
    if now.server.wal_level != "logical" and now.server.version < 190_000:
        yield f"wal_level is {now.server.wal_level!r}, expected 'logical'"


def _publication(config: PipelineConfig, wish: Wanted) -> Iterator[str]:
    """What the publication shall name has to be there, or it cannot be made."""
    if wish.publication is None:
        yield f"publication {config.cdc.publication!r} is not there, and no set has it"
        return
    with connect(config.postgres, autocommit=True) as connection:
        for table in wish.publication.tables:
            name = sql.Identifier(table.schema, table.name).as_string(connection)
            if not _there(connection, "to_regclass", name):
                yield f"table {table} is not there"
        for schema in wish.publication.schemas:
            name = sql.Identifier(schema).as_string(connection)
            if not _there(connection, "to_regnamespace", name):
                yield f"schema {schema} is not there"
        owner = sql.Identifier(wish.publication.owner).as_string(connection)
        if not _there(connection, "to_regrole", owner):
            yield f"role {wish.publication.owner} is not there, which owned the publication"


def _there(connection: psycopg.Connection[tuple[object, ...]], ask: str, name: str) -> bool:
    query = sql.SQL("SELECT {}(%s) IS NOT NULL").format(sql.SQL(ask))
    return connection.execute(query, [name]).fetchone() == (True,)


def _room(config: PipelineConfig, now: Reading) -> Iterator[str]:
    if now.slot(config.cdc.slot) is not None:
        return
    with connect(config.postgres, autocommit=True) as connection:
        row = connection.execute("SELECT current_setting('max_replication_slots')::int").fetchone()
    if row is not None and len(now.slots) >= row[0]:
        yield f"all {row[0]} replication slots are in use"
