"""After a re-snapshot: events without rows are buried, rows without events are reported.

A snapshot emits rows, never deletions: a row that the recovery took back lives on in its topic, a
ghost. The table is locked against writers while both sides are compared and the tombstones are
written, so the comparison is exact whether or not somebody was let in too early: an event that is
still on its way for a key without a row can only end in a deletion, and an event of a later insert
comes after the tombstone.

A tombstone cannot be taken back, so every table is compared before the first is written, and a
table with ghosts once more right before its own. Who cannot read keys takes all of them for ghosts:
a topic in which the rows are not recognised is an error, and so is a key that tells less than its
row does. A record that is no event of the table stands for nothing and is named.

Every key of one topic is in memory at a time: 400 bytes each, measured, so 4 GB for ten million.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import cache
from typing import Any, Self

import psycopg
from psycopg import sql

from pipeline.cdc.compare import Compared, compare, examples
from pipeline.cdc.debezium import modes
from pipeline.cdc.keys import (
    SETTINGS,
    Connection,
    KeyedTable,
    KeyReader,
    keyed_table,
    keys_of_rows,
    plain,
)
from pipeline.cdc.names import unquoted
from pipeline.cdc.routing import Routes, routes
from pipeline.cdc.topics import Ends, LiveKeys, end_offsets, live_keys, write_tombstones
from pipeline.cdc.wire import Decoder
from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError, ServerError
from pipeline.postgres.server.session import connect
from pipeline.registry.client import RegistryClient

HEADER = "pipeline.reconciled"
SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class TopicReconciliation:
    """One table against its topic. Examples are the first keys, as text."""

    topic: str
    table: str
    rows: int
    records: int
    ghosts: int
    missing: int
    tombstones: int
    ghost_examples: tuple[str, ...]
    missing_examples: tuple[str, ...]
    keyless: int = 0
    """Events that name no row, of a table that was dropped before they left: none counts here."""
    strange: int = 0
    """Records that are no event of the table: they stand for no row."""
    strangers: tuple[str, ...] = ()
    """The first of them, each by its place and why."""
    lossy: tuple[str, ...] = ()
    """What the keys do not tell of their rows, so that only the rest was compared."""


@dataclass(frozen=True)
class Reconciliation:
    """Every table against its topic. `missing` must be 0 before clients are let in."""

    recovery: str
    topics: tuple[TopicReconciliation, ...]
    left_out: tuple[str, ...] = ()
    """Topics that were not compared, as the operator wanted it."""

    @property
    def ghosts(self) -> int:
        return sum(topic.ghosts for topic in self.topics)

    @property
    def missing(self) -> int:
        return sum(topic.missing for topic in self.topics)

    @property
    def tombstones(self) -> int:
        return sum(topic.tombstones for topic in self.topics)

    @property
    def strangers(self) -> list[str]:
        """Records that are no event, for the gate: the first of each topic, by place and why."""
        return [stranger for topic in self.topics for stranger in topic.strangers]

    @property
    def told(self) -> str:
        """What came of it, for people, where nothing is missing."""
        keyless = sum(topic.keyless for topic in self.topics)
        told = [f"topics equal tables; {self.ghosts} ghosts buried"]
        told += [f"{keyless} events without a key name no row"] if keyless else []
        if strange := sum(topic.strange for topic in self.topics):
            told += [f"{strange} records are no event: {'; '.join(self.strangers[:3])}"]
        told += [
            f"keys of {t.table} do not tell {'; '.join(t.lossy)}" for t in self.topics if t.lossy
        ]
        told += [f"NOT compared: {', '.join(self.left_out)}"] if self.left_out else []
        return "; ".join(told)

    def facts(self) -> dict[str, Any]:
        """JSON-able, for the recovery's journal."""
        return asdict(self)


def topic_ends(config: PipelineConfig, tables: Iterable[str]) -> dict[str, Ends]:
    """Where the tables' topics end now: take it before the connector is resumed."""
    names = list(tables)
    found = routes(config, names)
    topics = {table: found[unquoted(table)].topic for table in names}
    return {
        table: end_offsets(config.kafka, topic) if topic else {} for table, topic in topics.items()
    }


def reconcile(
    config: PipelineConfig,
    *,
    since: Mapping[str, Ends],
    recovery: str,
    lock_within: timedelta = timedelta(seconds=10),
    arriving: timedelta = timedelta(0),
    left_out: Collection[str] = (),
) -> Reconciliation:
    """Compare each table of `since` with its topic, and bury what has no row.

    `since` is `topic_ends` from before the re-snapshot: a row counts as missing unless an event at
    or after it names its key, for an older event may tell a state that the recovery took back.
    Call it when the snapshot has ended; before, rows are reported missing that are on their way.
    Where clients write all the while, rows whose events are on their way are missing only after
    `arriving`: so long at most the table stays locked beyond the first comparison.
    `left_out` names topics or tables that are not to be compared. NotRecognised before anything is
    written, if any other topic cannot be.
    """
    with (
        connect(config.postgres, autocommit=True) as connection,
        RegistryClient(config.registry) as registry,
    ):
        places = routes(config, {*since, *_published(connection)})
        wanted = _wanted(places, since, left_out)
        sides = _Sides.of(config, connection, registry, places, lock_within, arriving)
        found, troubles = {}, _shared(places, wanted)
        for name in wanted:
            with sides.compared(name, since[name]) as (topic, compared):
                found[name] = topic
                troubles += [f"{topic.topic}: {why}" for why in [compared.trouble] if why]
        if troubles:
            raise NotRecognised(troubles)
        for name in wanted:
            if found[name].ghosts:
                with sides.compared(name, since[name]) as (topic, compared):
                    found[name] = _bury(config, recovery, topic, compared)
    return Reconciliation(recovery, tuple(found.values()), tuple(sorted(left_out)))


def compared(
    config: PipelineConfig, connection: Connection, table: str, places: Routes | None = None
) -> Compared:
    """Compare a table with its topic as they are, for a check: nothing is locked or written.

    Whoever writes meanwhile makes differences that are none; look at `trouble` first. `places` is
    where topics are, for who has asked already.
    """
    with RegistryClient(config.registry) as registry, connection.transaction():
        sides = _Sides.of(config, connection, registry, places or routes(config, [table]))
        return sides.look(keyed_table(connection, table), {})[1]


def topics_of(
    config: PipelineConfig, tables: Iterable[str], left_out: Collection[str] = ()
) -> list[str]:
    """Name the topics of these tables, without those that are left out by any of their names."""
    found = routes(config, names := list(tables))
    return [found[unquoted(table)].known for table in _wanted(found, names, left_out)]


class NotRecognised(ServerError):
    """Keys of topics could not be compared with their tables: nothing was written anywhere."""

    def __init__(self, troubles: list[str]) -> None:
        super().__init__(
            "; ".join(troubles)
            + ". No tombstone was written to any topic: set the connector right "
            "and read its rows again, or leave such a topic out by its name"
        )


def _wanted(places: Routes, tables: Iterable[str], left_out: Collection[str]) -> list[str]:
    names = {table: {table, unquoted(table), places[unquoted(table)].topic} for table in tables}
    if unknown := set(left_out) - set().union(*names.values()):
        topics = ", ".join(places[unquoted(table)].topic or table for table in names) or "none"
        raise ConfigError(f"no such topic to leave out: {sorted(unknown)}; there are: {topics}")
    return [table for table, known in names.items() if not known & set(left_out)]


def _published(connection: Connection) -> list[str]:
    rows = connection.execute("SELECT schemaname || '.' || tablename FROM pg_publication_tables")
    return [name for (name,) in rows]


def _shared(places: Routes, wanted: Iterable[str]) -> list[str]:
    """Name topics of more tables than one: each table's keys would be ghosts to the others."""
    owners = {places[unquoted(table)].known: set[str]() for table in wanted}
    for route in places.values():
        owners.get(route.topic or "", set()).add(route.table)
    return [
        f"{topic} has the events of {' and '.join(sorted(names))}"
        for topic, names in owners.items()
        if len(names) > 1
    ]


@dataclass(frozen=True)
class _Sides:
    """Both sides of a comparison, and how long it may wait for others."""

    config: PipelineConfig
    connection: Connection
    decoder: Decoder
    settings: Callable[[], Mapping[str, str]]
    places: Routes
    lock_within: timedelta = timedelta(0)
    arriving: timedelta = timedelta(0)

    @classmethod
    def of(
        cls,
        config: PipelineConfig,
        connection: Connection,
        registry: RegistryClient,
        places: Routes,
        *patience: timedelta,
    ) -> Self:
        """Have the session print what keys are compared by."""
        for setting, value in SETTINGS.items():
            connection.execute("SELECT set_config(%s, %s, false)", [setting, value])
        settings, decoder = cache(lambda: modes(config)), Decoder(registry.schema_by_id)
        return cls(config, connection, decoder, settings, places, *patience)

    @contextmanager
    def compared(self, name: str, since: Ends) -> Iterator[tuple[TopicReconciliation, Compared]]:
        """Compare a table and its topic; it is locked against writers until the block ends."""
        table = keyed_table(self.connection, name)
        deadline = time.monotonic() + self.arriving / SECOND
        with self.connection.transaction():
            _lock(self.connection, table, self.lock_within)
            while True:  # reading the topic again is the pause
                folded, found = self.look(table, since)
                if not found.missing or time.monotonic() >= deadline:
                    break
            yield _told(table, folded, found), found

    def look(self, table: KeyedTable, since: Ends) -> tuple[LiveKeys, Compared]:
        """Compare both sides as they are now."""
        place = self.places[str(table)]
        topic, is_event = place.known, place.is_event(self.decoder)
        folded = live_keys(self.config.kafka, topic, is_event)
        read = KeyReader(self.decoder, table, topic, self.settings)
        return folded, compare(
            read, lambda layouts: keys_of_rows(self.connection, table, layouts), folded, since
        )


def _told(table: KeyedTable, folded: LiveKeys, found: Compared) -> TopicReconciliation:
    return TopicReconciliation(
        topic=folded.topic,
        table=str(table),
        rows=found.rows,
        records=folded.records,
        ghosts=found.ghost_keys,
        missing=len(found.missing),
        tombstones=0,
        ghost_examples=examples(plain(raw) for _, raw in found.ghosts),
        missing_examples=examples(", ".join(map(str, key)) for key in found.missing),
        keyless=folded.keyless,
        strange=len(found.strangers),
        strangers=examples(map(str, found.strangers)),
        lossy=found.lossy,
    )


def _bury(
    config: PipelineConfig, recovery: str, told: TopicReconciliation, found: Compared
) -> TopicReconciliation:
    if why := found.trouble:  # it has changed since all were compared
        raise NotRecognised([f"{told.topic}: {why}"])
    header = (HEADER, recovery.encode())
    written = write_tombstones(config.kafka, told.topic, found.ghosts, header)
    return replace(told, tombstones=written)


def _lock(connection: Connection, table: KeyedTable, within: timedelta) -> None:
    milliseconds = round(within.total_seconds() * 1000)
    try:
        connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(milliseconds))
        connection.execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(table.identifier))
    except psycopg.errors.LockNotAvailable as error:
        raise ServerError(
            f"{table} is being written to, after {within.total_seconds():g} s still: keep clients "
            "out until its topic is reconciled"
        ) from error
