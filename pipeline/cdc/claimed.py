"""Whether a stored offset tells the truth: what it says was delivered is in the topics.

An offset that somebody moved ahead looks like a sound one: it always is ahead of its slot, for
Connect stores first and confirms then. The slot still holds what lies between the two, so that is
decoded, and the last change of each table must be an event. Debezium sends in order: with it, all
before it are there. Ask only once nobody moves either of them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg

from pipeline.cdc.include_lists import left_out, skips
from pipeline.cdc.names import renames, topic_of
from pipeline.cdc.needs import Need
from pipeline.cdc.routing import NONE_TOLD, source_of, table_of
from pipeline.cdc.state.connect import Connector
from pipeline.cdc.state.reading import Reading
from pipeline.cdc.topics import records, sampled
from pipeline.cdc.wire import Decoder, Undecodable
from pipeline.config import PipelineConfig
from pipeline.errors import PipelineError
from pipeline.postgres.replication.publications import as_list
from pipeline.postgres.replication.slots import temporary_copy
from pipeline.postgres.server.session import connect
from pipeline.postgres.wal.lsn import Lsn
from pipeline.registry.client import RegistryClient

TAIL = 200
"""Records at a topic's end among which the last change is looked for before all are read."""
OUTBOX, SIGNALS = "outbox", "signals"
NO_SOURCE = "has events without their source: they name no change"
HEARTBEAT = {"ts_ms"}
"""All that a record of a heartbeat's topic has."""
UNKNOWN = "UNKNOWN whether its offset tells the truth"
_KINDS = {"c": "I", "u": "U", "d": "D"}
"""What pgoutput calls the operations that skipped.operations names."""
Read = Callable[[str], Iterable[Any]]
"""Gives records of a topic, or none where it does not exist."""

# a transaction counts where its commit record begins before the offset. A change's message begins
# with the relation's oid, and one that told its name stands before (manual, 54.9)
_LAST = """
    WITH changes AS (
        SELECT lsn, xid::text::bigint AS xid, chr(get_byte(data, 0)) AS kind, data, number
          FROM pg_logical_slot_peek_binary_changes(%(copy)s, %(until)s::pg_lsn, NULL,
               'proto_version', '1', 'publication_names', %(publication)s)
               WITH ORDINALITY AS peeked (lsn, xid, data, number)
    ), claimed AS (
        SELECT xid FROM changes
         WHERE kind = 'C' AND ('x' || encode(substring(data FROM 3 FOR 8), 'hex'))::bit(64)::bigint
               < ('x' || %(hex)s)::bit(64)::bigint
    ), relations AS (
        SELECT substring(data FROM 2 FOR 4) AS relation, data, number FROM changes WHERE kind = 'R'
    ), last AS (
        SELECT DISTINCT ON (relation) substring(data FROM 2 FOR 4) AS relation, lsn, xid, number
          FROM changes WHERE kind = ANY(%(kinds)s) AND xid IN (SELECT xid FROM claimed)
         ORDER BY relation, number DESC
    )
    SELECT (SELECT r.data FROM relations r WHERE r.relation = last.relation
               AND r.number < last.number ORDER BY r.number DESC LIMIT 1), lsn::text, xid
      FROM last ORDER BY number
"""


@dataclass(frozen=True)
class Claim:
    """The last change of a table that an offset says was delivered."""

    table: str
    lsn: Lsn
    xid: int

    def __str__(self) -> str:
        return f"the change of {self.table} at {self.lsn}, transaction {self.xid}"


def unfounded(config: PipelineConfig, now: Reading, connector: Connector) -> Iterator[Need]:
    """Yield what an offset says was delivered and is in no topic, and what cannot be looked at."""
    slot = now.slot(config.cdc.slot)
    if slot is None or slot.lost or slot.confirmed_flush_lsn is None or connector.lsn is None:
        return
    if connector.lsn <= slot.confirmed_flush_lsn:
        return
    own = (table for table in now.service_tables if table.connector == connector.name)
    uses = {table.table: table.use for table in own}
    ends = partial(sampled, config.kafka, count=TAIL)
    reads: list[Read] = [ends, partial(records, config.kafka)]
    try:
        with connect(config.postgres, autocommit=True) as connection:
            claims = list(_claims(config, connection, connector))
        with RegistryClient(config.registry) as registry:
            decoder = Decoder(registry.schema_by_id)
            look = Look(connector, config.cdc.topic_prefix, decoder, uses)
            yield from look.needs(claims, reads)
    except (psycopg.Error, PipelineError) as error:
        told = str(error).strip().splitlines()[0]
        yield Need(f"{connector.name}: {UNKNOWN}: {told}", reread=True)


def _claims(
    config: PipelineConfig, connection: psycopg.Connection[Any], connector: Connector
) -> Iterator[Claim]:
    asked = {
        "until": str(connector.lsn),
        "hex": f"{int(connector.lsn or 0):016x}",
        "publication": as_list(config.cdc.publication),
        "kinds": claimable(connector),
    }
    with temporary_copy(connection, config.cdc.slot) as copy:
        rows = connection.execute(_LAST, asked | {"copy": copy}).fetchall()
    for relation, lsn, xid in rows:
        schema, name = relation[5:].split(b"\0")[:2]
        yield Claim(f"{schema.decode()}.{name.decode()}", Lsn.parse(lsn), xid)


def claimable(connector: Connector) -> list[str]:
    """Name the kinds of changes, as pgoutput does, of which there must be an event."""
    told = connector.config
    kinds = [kind for operation, kind in _KINDS.items() if not skips(told, operation)]
    unchanged = told.get("skip.messages.without.change", "").lower() == "true"
    return [kind for kind in kinds if kind != "U" or not unchanged]


@dataclass
class Look:
    """What a connector's topics tell of claims; `blind` says of a topic why it does not."""

    connector: Connector
    prefix: str
    decoder: Decoder
    uses: Mapping[str, str] = field(default_factory=dict)
    """Tables that the connector needs for itself, and for what."""
    blind: dict[str, str] = field(default_factory=dict)

    def needs(self, claims: Iterable[Claim], reads: Iterable[Read]) -> Iterator[Need]:
        """Yield what is in no topic. All are read by each of `reads` until nothing is owed."""
        owed = set[Claim]()
        for claim in claims:
            use = self.uses.get(claim.table)
            if use == OUTBOX:  # no re-read would bring it back either
                yield Need(
                    f"{self._name}: {UNKNOWN}: {claim} is of an outbox, whose events name none"
                )
            elif use != SIGNALS and left_out(self.connector.config, claim.table) is None:
                owed.add(claim)
        for read in reads:
            for topic in sorted({topic for claim in owed for topic in self._places(claim)}):
                if self.blind.get(topic) != NO_SOURCE:
                    owed -= self._found(read(topic), topic, owed)
        for claim in sorted(owed, key=lambda one: one.lsn):
            yield Need(self._told(claim), reread=True)

    @property
    def _name(self) -> str:
        return self.connector.name

    def _places(self, claim: Claim) -> set[str]:
        """Name topics in one of which the event must be; any, where they have other names."""
        if renames(self.connector.config) is not None:
            return set(self.connector.topics)
        return {topic_of(self.prefix, claim.table)}

    def _found(self, read: Iterable[Any], topic: str, owed: set[Claim]) -> set[Claim]:
        found = set[Claim]()
        for value in filter(None, (record.value() for record in read)):
            try:
                values = self.decoder.message(value).values
            except Undecodable as error:
                self.blind.setdefault(topic, f"has records that cannot be read: {error}")
                continue
            if (source := source_of(values)) is None:
                self.blind |= {topic: NO_SOURCE} if values.keys() != HEARTBEAT else {}
            elif source.get("lsn") is not None and source.get("txId") is not None:
                found |= {Claim(table_of(source), Lsn(source["lsn"]), source["txId"])} & owed
        return found

    def _told(self, claim: Claim) -> str:
        places = self._places(claim)
        if blind := sorted(places & self.blind.keys()):
            return f"{self._name}: {UNKNOWN}: {blind[0]} {self.blind[blind[0]]}"
        if not places:
            why = renames(self.connector.config)
            return f"{self._name}: {UNKNOWN}: {why} names its topics, and {NONE_TOLD}"
        told = f"its offset {self.connector.lsn} says that all before it was delivered"
        where = f"in any of its {len(places)} topics" if len(places) > 1 else f"in {min(places)}"
        return f"{self._name}: {told}, and {claim} is not {where}"
