"""Topics against tables at one moment, while clients write: nothing is locked, nothing written.

The tables are read by one snapshot. Once everything up to it has been delivered, each topic is
folded to the last state of every key at that snapshot, and compared with the rows, both ways. Who
cannot tell whether it has been delivered finds differences that may be on their way: UNKNOWN.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import IsolationLevel

from pipeline.cdc import point
from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.debezium import own_connectors, reads
from pipeline.cdc.fence import Fence, Snapshot
from pipeline.cdc.include_lists import left_out
from pipeline.cdc.keys import SETTINGS, Connection, keyed_table, texts_of_rows
from pipeline.cdc.last_states import LastStates
from pipeline.cdc.names import unquoted
from pipeline.cdc.routing import Route, routes
from pipeline.cdc.told_tables import ToldTable, take
from pipeline.cdc.topics import end_offsets, records
from pipeline.cdc.verdicts import Consistency, TableVerdict, judged
from pipeline.cdc.wire import Decoder
from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError, ServerError
from pipeline.kafka.cluster.topics import described, extents
from pipeline.postgres.server.session import connect
from pipeline.postgres.wal.lsn import Lsn
from pipeline.registry.client import RegistryClient

_TABLES = """
    SELECT schemaname || '.' || tablename, rowfilter FROM pg_publication_tables
     WHERE pubname = %s ORDER BY 1"""
FIRST_LOOK = timedelta(seconds=5)
_SECONDS = 5.0
"""Between two lines of progress."""


def verify(
    config: PipelineConfig,
    progress: Callable[[str], None],
    *,
    tables: Collection[str] = (),
    within: timedelta = point.WITHIN,
) -> Consistency:
    """Compare published tables, or these of them, with their topics.

    Where nothing differs it does not matter how far the connector says that it is: what it had
    not delivered would be missing. Only else it is waited for, and both sides are read once more.
    """
    found = _compared(config, progress, tables, min(within, FIRST_LOOK))
    if found.unknown is not None and within > FIRST_LOOK:
        progress(f"  there are differences, and {found.unknown}: it is waited for")
        found = _compared(config, progress, tables, within)
    return found


def _compared(
    config: PipelineConfig,
    progress: Callable[[str], None],
    tables: Collection[str],
    within: timedelta,
) -> Consistency:
    with ExitStack() as leaving:
        connection = leaving.enter_context(connect(config.postgres, autocommit=True))
        registry = leaving.enter_context(RegistryClient(config.registry))
        told = _settings(config)
        filters = _wanted(connection, config, told, tables, progress)
        places = routes(config, filters)
        ends = {r.topic: end_offsets(config.kafka, r.topic) for r in places.values() if r.topic}
        for setting, value in SETTINGS.items():
            connection.execute("SELECT set_config(%s, %s, false)", [setting, value])
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        leaving.enter_context(connection.transaction())
        reached = point.reach(config, progress, within=within, seen_by=connection)
        if reached["point"] is None:
            raise ServerError(reached["reason"])
        late = None if reached["caught_up"] is True else reached["reason"]
        fold = leaving.enter_context(LastStates())
        run = _Run(config, connection, Decoder(registry.schema_by_id), told, fold, progress)
        fence = _fence(config, reached, ends)
        known = {
            name: run.table(number, places[name])
            for number, name in enumerate(filters)
            if places[name].topic is not None
        }
        for topic in sorted({table.topic for table in known.values()}):
            run.fold_topic(topic, known, fence)
        verdicts = [
            run.verdict(known[name], filters[name])
            if name in known
            else TableVerdict(name, "", unknown=(places[name].why,))
            for name in filters
        ]
    lsn = reached.get("idle_until") or reached["point"]["lsn"]
    return _sure(Consistency(tuple(verdicts), lsn, late))


def _sure(found: Consistency) -> Consistency:
    """Take differences for unknown where they may be on their way."""
    if found.unknown is None or not any(one.differs for one in found.tables):
        return replace(found, unknown=None)
    why = f"not all was delivered: {found.unknown}"
    doubted = (
        replace(one, unknown=(*one.unknown, why)) if one.differs else one for one in found.tables
    )
    return replace(found, tables=tuple(doubted))


def _settings(config: PipelineConfig) -> dict[str, str]:
    """Read how this pipeline's connector writes; ServerError where there is none."""
    with ConnectClient(config.connect) as client:
        there = client.names()
        own = {
            name: client.config(name) for name in own_connectors(config, client) if name in there
        }
    found = [told for told in own.values() if len(own) == 1 or reads(config, told)]
    if len(found) != 1:
        raise ServerError(
            f"{config.connect.url}: expected one connector of slot {config.cdc.slot!r}, found "
            f"{', '.join(own) or 'none'}: name it in connect.connectors"
        )
    return found[0]


def _wanted(
    connection: Connection,
    config: PipelineConfig,
    told: Mapping[str, str],
    only: Collection[str],
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, str | None]:
    """Name the published tables that the connector reads, with their row filters."""
    found = dict[str, str | None]()
    for name, condition in connection.execute(_TABLES, [config.cdc.publication]):
        if (why := left_out(told, name)) is not None:
            progress(f"  NOT compared: {name} is published, and left out by {why}")
        elif name != told.get("signal.data.collection"):
            found[name] = condition
    asked = {unquoted(name) for name in only}
    if missing := asked - found.keys():
        there = ", ".join(found) or "none"
        raise ConfigError(f"--table: no such table is captured: {sorted(missing)}; there: {there}")
    return {name: found[name] for name in found if not asked or name in asked}


def _fence(config: PipelineConfig, reached: Mapping[str, Any], ends: Mapping[str, Any]) -> Fence:
    with connect(config.postgres, autocommit=True) as connection:
        row = connection.execute("SELECT pg_current_snapshot()::text").fetchone() or ("1:1:",)
    lsn = reached.get("idle_until") or reached["point"]["lsn"]
    seen = Snapshot.parse(reached["point"]["snapshot"])
    return Fence(ends, seen, int(Lsn.parse(lsn)), Snapshot.parse(row[0]))


@dataclass
class _Run:
    config: PipelineConfig
    connection: psycopg.Connection[Any]
    decoder: Decoder
    told: Mapping[str, str]
    fold: LastStates
    progress: Callable[[str], None]
    begun: dict[str, bool] = field(default_factory=dict)
    """Of each topic, whether it still has its first records."""

    def table(self, number: int, route: Route) -> ToldTable:
        table = keyed_table(self.connection, route.table)
        return ToldTable(number, table, route.known, self.decoder, self.told)

    def fold_topic(self, topic: str, tables: Mapping[str, ToldTable], fence: Fence) -> None:
        """Take in every record of a topic, each at the table that its source names."""
        self.begun[topic] = _begins(self.config, topic)
        here = [table for table in tables.values() if table.topic == topic]
        ends = end_offsets(self.config.kafka, topic)
        what = f"  {topic} (ends at {sum(ends.values()):,}): records read"
        for record in self._counted(what, records(self.config.kafka, topic) if ends else ()):
            take(record, self.decoder, self.fold, tables, here, fence)

    def verdict(self, table: ToldTable, condition: str | None) -> TableVerdict:
        """Compare one table's rows with what was folded."""
        name = str(table.table)
        columns, only = table.table.columns, condition or "true"
        try:
            with self.connection.transaction():  # what one table refuses ends no other
                rows = texts_of_rows(self.connection, table.table, columns, only)
                what = f"  {name} ({table.events:,} events): rows compared"
                table.compare(self.fold, self._counted(what, rows))
        except psycopg.Error as error:
            return TableVerdict(name, table.topic, unknown=(" ".join(str(error).split()),))
        return judged(self.told, self.fold, table, begun=self.begun[table.topic])

    def _counted(self, what: str, stream: Iterable[Any]) -> Iterator[Any]:
        """Pass a stream on, and tell every few seconds and at its end how much it was."""
        count, told = 0, time.monotonic()
        for count, each in enumerate(stream, 1):
            yield each
            if time.monotonic() >= told + _SECONDS:
                told = time.monotonic()
                self.progress(f"{what} {count:,}")
        self.progress(f"{what} {count:,}")


def _begins(config: PipelineConfig, topic: str) -> bool:
    """Whether a topic has lost no records but those that compaction made needless."""
    for found in described(config.kafka, [topic])[0]:
        starts = [extent.start for extent in extents(config.kafka, found.places).values()]
        return not any(starts)
    return True
