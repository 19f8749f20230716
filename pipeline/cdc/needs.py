"""What a recovery of CDC has to mend, from what was read: nothing here asks a server.

What is sound goes on where it stands. Wherever an event may be in no topic, every row is read again
and what has no row is buried: `reread`. Whether an offset tells the truth cannot be seen from
positions alone; who stopped the consumer holds it against the topics (pipeline.cdc.claimed).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from pipeline.cdc.state.connect import Connector
from pipeline.cdc.state.of_positions import BOTH
from pipeline.cdc.state.reading import Reading
from pipeline.config import PipelineConfig
from pipeline.postgres.replication.publications import (
    OPERATIONS,
    Publication,
    PublishedTable,
    differences,
)
from pipeline.postgres.replication.slots import PLUGIN


@dataclass(frozen=True)
class Need:
    """Something that is wrong. A new slot begins behind the old one, so it means a re-read too.

    Of a `gap` all that may be missing lies between the stored offset and where the slot begins, so
    it can be decoded again instead.
    """

    what: str
    reread: bool = False
    new_slot: bool = False
    gap: bool = False

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True)
class Wanted:
    """Publication and slot as they shall be: as the set has them, and not less than they are."""

    publication: Publication | None
    failover: bool = False
    two_phase: bool = False

    def facts(self) -> dict[str, Any]:
        """As a journal keeps it."""
        publication = self.publication.facts() if self.publication else None
        return {
            "publication": publication,
            "failover": self.failover,
            "two_phase": self.two_phase,
        }

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """As a journal kept it."""
        told = facts["publication"]
        publication = None if told is None else Publication.of(told)
        return cls(publication, facts["failover"], facts["two_phase"])


def wanted(
    config: PipelineConfig, now: Reading, known: Reading | None, *, keep_publication: bool = False
) -> Wanted:
    """Say what publication and slot shall be.

    What somebody added to the publication since the set was taken stays; what went from it comes
    back, unless it was narrowed on purpose (`keep_publication`), or the table was dropped.
    """
    name, database = config.cdc.publication, config.postgres.dbname
    found = now.publication(database, name)
    then = known.publication(database, name) if known else None
    publication = found.publication if found else None
    if then is not None and not (keep_publication and found):
        present = now.tables.get(database)
        publication = _at_least(_still_there(then.publication, present), publication)
    slots = [reading and reading.slot(config.cdc.slot) for reading in (known, now)]
    flags = {
        flag: any(slot is not None and bool(getattr(slot, flag)) for slot in slots)
        for flag in ("failover", "two_phase")
    }
    return Wanted(publication, **flags)


def of_source(config: PipelineConfig, now: Reading, wish: Wanted) -> Iterator[Need]:
    """What is wrong with publication and slot."""
    name, database = config.cdc.publication, config.postgres.dbname
    found = now.publication(database, name)
    if found is None:
        gone = f"publication {name!r} is not there"
        yield Need(f"{gone}: no slot of before it can be decoded", reread=True, new_slot=True)
    elif wish.publication is not None:
        for told in differences(wish.publication, found.publication):
            yield Need(f"publication {name!r}: {told}", reread=True)
    slot = now.slot(config.cdc.slot)
    if slot is None:
        yield Need(f"slot {config.cdc.slot!r} is not there", reread=True, new_slot=True, gap=True)
    elif slot.lost:
        lost = f"slot {slot.name!r} is lost: {slot.lost}"
        yield Need(lost, reread=True, new_slot=True, gap=True)
    elif slot.confirmed_flush_lsn is None:
        never = f"slot {slot.name!r} never came to a position: its creation did not end"
        yield Need(never, reread=True, new_slot=True, gap=True)


def strangers(config: PipelineConfig, now: Reading) -> Iterator[str]:
    """Say that the slot of our name is none of ours, or that another connector reads it too."""
    slot = now.slot(config.cdc.slot)
    ours = ("logical", PLUGIN, config.postgres.dbname)
    if slot is not None and (slot.slot_type, slot.plugin, slot.database) != ours:
        told = f"{slot.slot_type}, {slot.plugin or 'no plugin'}, {slot.database or 'no database'}"
        yield f"slot {slot.name!r} is {told}, expected {', '.join(ours)}"
    places = {each.place for each in now.connectors if each.own}
    readers = [
        each.name
        for each in now.connectors
        if (each.slot, each.database) == (config.cdc.slot, config.postgres.dbname)
        and (each.own or each.place in places)
    ]
    if len(readers) > 1:
        yield f"slot {config.cdc.slot!r} is read by {' and '.join(readers)}"


def of_offset(config: PipelineConfig, now: Reading, connector: Connector) -> Iterator[Need]:
    """What is wrong with what is stored for a connector, once nobody moves it any more."""
    name, slot, server = connector.name, now.slot(config.cdc.slot), now.server
    if (why := connector.unsure) is not None:
        yield Need(f"{name}: UNKNOWN which offset is its own: {why}", reread=True)
        return
    if not connector.mine:
        prefix = connector.told("topic.prefix")
        yield Need(f"{name}: no offset is stored under {prefix!r}", reread=True)
        return
    if (offset := connector.lsn) is None:
        snapshot = any(one.snapshotting for one in connector.mine)
        none = f"its offset names no LSN: {connector.mine[0].offset}"
        why = "its snapshot did not come to its end" if snapshot else none
        yield Need(f"{name}: {why}", reread=True)
    elif any(one.textual for one in connector.mine):
        what = f"its offset has text for numbers, and would fail: {connector.mine[0].offset}"
        yield Need(f"{name}: {what}", reread=True)
    elif server is None or offset > server.flush_lsn:
        end = server and server.flush_lsn
        yield Need(f"{name}: its offset {offset} is ahead of the server's WAL, {end}", reread=True)
    elif slot is not None and slot.confirmed_flush_lsn and slot.confirmed_flush_lsn > offset:
        gap = f"from {offset} to {slot.confirmed_flush_lsn}"
        if connector.told("lsn.flush.mode") == BOTH:
            told = f"by lsn.flush.mode={BOTH}: {gap} nothing is for it"
            yield Need(f"{name}: its slot is ahead of its offset {told}")
        else:
            told = f"what was published {gap} is skipped in silence"
            yield Need(f"{name}: its slot is ahead of its offset: {told}", reread=True, gap=True)
    if connector.history is not None and server and connector.history != server.history:
        yield Need(f"{name}: its offset is of another history of the server", reread=True)


def stretch(config: PipelineConfig, now: Reading, connectors: Sequence[Connector]) -> str:
    """Say which WAL holds what a re-read cannot tell: states in between, and rows of no table."""
    slot, server = now.slot(config.cdc.slot), now.server
    begins = [each.lsn for each in connectors if each.lsn is not None]
    if server is None or not begins or min(begins) > server.flush_lsn:
        return "from an unknown position on"
    begin = min(begins)
    if slot is not None and not slot.lost and slot.confirmed_flush_lsn is not None:
        begin = min(begin, slot.confirmed_flush_lsn)
    return f"from {begin} to {server.flush_lsn}, {server.flush_lsn - begin:,} bytes of WAL"


def _at_least(then: Publication, found: Publication | None) -> Publication:
    """As it was, with what was published besides since."""
    if found is None:
        return then
    every = then.all_tables or found.all_tables
    schemas = (*then.schemas, *(s for s in found.schemas if s not in set(then.schemas)))
    return replace(
        then,
        all_tables=every,
        publish=tuple(one for one in OPERATIONS if one in {*then.publish, *found.publish}),
        owner=found.owner,
        tables=() if every else tuple(_listed(then, found, schemas)),
        schemas=() if every else schemas,
    )


def _listed(
    then: Publication, found: Publication, schemas: Collection[str]
) -> Iterator[PublishedTable]:
    """List tables; of a schema that is published whole those that stood beside it.

    A server takes no list of columns beside the whole schema (CREATE PUBLICATION).
    """
    published = {str(table): table for table in found.tables}
    known = {str(table) for table in then.tables}
    for table in then.tables:
        if table.schema not in schemas:
            yield _wider(table, published.get(str(table)))
        elif table.schema not in found.schemas and table.schema in then.schemas:
            yield table
    for table in found.tables:
        beside = table.schema in found.schemas
        if beside or (table.schema not in schemas and str(table) not in known):
            yield table


def _wider(then: PublishedTable, now: PublishedTable | None) -> PublishedTable:
    """As it was, unless no less of it is published now."""
    if now is None:
        return then
    columns = now.columns is None or set(now.columns) >= set(then.columns or ["?"])
    return now if columns and now.rows in {None, then.rows} else then


def _still_there(then: Publication, present: Collection[str] | None) -> Publication:
    """Leave out tables that were dropped since; of those of an unknown database none."""
    if present is None:
        return then
    return replace(then, tables=tuple(table for table in then.tables if str(table) in present))
