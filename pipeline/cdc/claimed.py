"""Whether a stored offset tells the truth: what it says was delivered is in the topics.

An offset that somebody moved ahead looks like a sound one: it always is ahead of its slot, for
Connect stores first and confirms then. The slot still holds what lies between the two, so that is
decoded, and the last change of each table must be an event. Debezium sends in order: with it, all
before it are there. Ask only once nobody moves either of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

from pipeline.cdc.names import topic_of
from pipeline.cdc.needs import Need
from pipeline.cdc.state.reading import Connector, Reading
from pipeline.cdc.topics import sampled
from pipeline.cdc.wire import Decoder, Undecodable
from pipeline.config import PipelineConfig
from pipeline.errors import ServerError
from pipeline.postgres.replication.publications import as_list
from pipeline.postgres.replication.slots import temporary_copy
from pipeline.postgres.server.session import connect
from pipeline.postgres.wal.lsn import Lsn
from pipeline.registry.client import RegistryClient

TAIL = 200
"""Records at a topic's end among which the last change is looked for: repeated ones and tombstones
may follow it."""

# the relation's oid is what comes first in a message of a row (manual, 54.9); a transaction counts
# where its commit record begins before the offset
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
    ), rows AS (
        SELECT ('x' || encode(substring(data FROM 2 FOR 4), 'hex'))::bit(32)::int::oid AS relation,
               lsn, xid, number FROM changes
         WHERE kind IN ('I', 'U', 'D') AND xid IN (SELECT xid FROM claimed)
    )
    SELECT DISTINCT ON (relation) n.nspname || '.' || c.relname, lsn::text, xid
      FROM rows JOIN pg_class c ON c.oid = relation JOIN pg_namespace n ON n.oid = c.relnamespace
     ORDER BY relation, number DESC
"""


@dataclass(frozen=True)
class Claim:
    """The last change of a table that an offset says was delivered."""

    table: str
    lsn: Lsn
    xid: int


def unfounded(config: PipelineConfig, now: Reading, connector: Connector) -> Iterator[Need]:
    """Yield what an offset says was delivered and is in no topic, and what cannot be looked at."""
    slot = now.slot(config.cdc.slot)
    if slot is None or slot.lost or slot.confirmed_flush_lsn is None or connector.lsn is None:
        return
    if connector.lsn <= slot.confirmed_flush_lsn:
        return
    prefix, name = connector.told("topic.prefix"), connector.name
    try:
        with connect(config.postgres, autocommit=True) as connection:
            claims = list(_claims(connection, slot.name, connector.publication, connector.lsn))
        for claim in claims:
            topic = topic_of(prefix, claim.table)
            if topic in connector.topics and not _there(config, topic, claim):
                told = f"{name}: its offset {connector.lsn} says that all before it was delivered"
                change = f"the change of {claim.table} at {claim.lsn}, transaction {claim.xid}"
                yield Need(f"{told}, and {change} is not in {topic}", reread=True)
    except (psycopg.Error, ServerError, Undecodable) as error:
        told = str(error).strip().splitlines()[0]
        yield Need(f"{name}: UNKNOWN whether its offset tells the truth: {told}", reread=True)


def _claims(
    connection: psycopg.Connection[Any], slot: str, publication: str, offset: Lsn
) -> Iterator[Claim]:
    asked = {
        "until": str(offset),
        "hex": f"{int(offset):016x}",
        "publication": as_list(publication),
    }
    with temporary_copy(connection, slot) as copy:
        rows = connection.execute(_LAST, asked | {"copy": copy}).fetchall()
    for table, lsn, xid in rows:
        yield Claim(table, Lsn.parse(lsn), xid)


def _there(config: PipelineConfig, topic: str, claim: Claim) -> bool:
    with RegistryClient(config.registry) as registry:
        decoder = Decoder(registry.schema_by_id)
        for record in sampled(config.kafka, topic, TAIL):
            value = record.value()
            source = decoder.message(value).values.get("source") if value else None
            if not value:
                continue
            if source is None:
                raise ServerError(f"{topic} has events without their source: they name no change")
            if (source.get("lsn"), source.get("txId")) == (int(claim.lsn), claim.xid):
                return True
    return False
