"""After a re-snapshot: events without rows are buried, rows without events are reported.

A snapshot emits rows, never deletions: a row that the recovery took back lives on in its topic, a
ghost. The table is locked against writers while both sides are compared and the tombstones are
written, so the comparison is exact whether or not somebody was let in too early: an event that is
still on its way for a key without a row can only end in a deletion, and an event of a later insert
comes after the tombstone.

Every key of one topic is in memory at a time: 400 bytes each, measured, so 4 GB for ten million.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import sql

from pipeline.cdc.keys import Connection, Key, KeyedTable, KeyReader, keyed_table, primary_keys
from pipeline.cdc.topics import Ends, LiveKeys, end_offsets, live_keys, write_tombstones
from pipeline.config import PipelineConfig
from pipeline.errors import ServerError
from pipeline.registry.client import RegistryClient

HEADER = "pipeline.reconciled"
EXAMPLES = 20
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


@dataclass(frozen=True)
class Reconciliation:
    """Every table against its topic. `missing` must be 0 before clients are let in."""

    recovery: str
    topics: tuple[TopicReconciliation, ...]

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
    def told(self) -> str:
        """What came of it, for people, where nothing is missing."""
        keyless = sum(topic.keyless for topic in self.topics)
        told = f"topics equal tables; {self.ghosts} ghosts buried"
        return f"{told}; {keyless} events without a key name no row" if keyless else told

    def facts(self) -> dict[str, Any]:
        """JSON-able, for the recovery's journal."""
        return asdict(self)


def topic_ends(config: PipelineConfig, tables: Iterable[str]) -> dict[str, Ends]:
    """Where the tables' topics end now: take it before the connector is resumed."""
    return {table: end_offsets(config.kafka, _topic(config, table)) for table in tables}


def reconcile(
    config: PipelineConfig,
    *,
    since: Mapping[str, Ends],
    recovery: str,
    lock_within: timedelta = timedelta(seconds=10),
    arriving: timedelta = timedelta(0),
) -> Reconciliation:
    """Compare each table of `since` with its topic, and bury what has no row.

    `since` is `topic_ends` from before the re-snapshot: a row counts as missing unless an event at
    or after it names its key, for an older event may tell a state that the recovery took back.
    Call it when the snapshot has ended; before, rows are reported missing that are on their way.
    Where clients write all the while, rows whose events are on their way are missing only after
    `arriving`: so long at most the table stays locked beyond the first comparison.
    """
    with (
        psycopg.connect(**config.postgres.conninfo()) as connection,
        RegistryClient(config.registry) as registry,
    ):
        topics = []
        for name, ends in since.items():
            table = keyed_table(connection, name)
            connection.rollback()  # the lock must be the transaction's first statement
            with connection.transaction():
                _lock(connection, table, lock_within)
                reader, deadline = KeyReader(registry, table), time.monotonic() + arriving / SECOND
                while True:  # reading the topic again is the pause
                    folded = live_keys(config.kafka, _topic(config, name))
                    compared = _compare(connection, reader, table, folded, ends)
                    if not compared.missing or time.monotonic() >= deadline:
                        break
                topics.append(_bury(config, recovery, compared))
    return Reconciliation(recovery, tuple(topics))


@dataclass(frozen=True)
class _Compared:
    table: KeyedTable
    folded: LiveKeys
    rows: int
    ghosts: dict[Key, list[tuple[int, bytes]]]
    missing: list[Key]


def _compare(
    connection: Connection, read: KeyReader, table: KeyedTable, folded: LiveKeys, since: Ends
) -> _Compared:
    living: dict[Key, list[tuple[int, bytes]]] = {}
    fresh: set[Key] = set()
    for partition, raw, offset in folded:
        key = read(raw)
        living.setdefault(key, []).append((partition, raw))
        if offset >= since.get(partition, 0):
            fresh.add(key)
    rows, missing = 0, []
    for rows, key in enumerate(primary_keys(connection, table), 1):  # noqa: B007 - the count
        living.pop(key, None)
        if key not in fresh:
            missing.append(key)
    return _Compared(table, folded, rows, living, missing)


def _bury(config: PipelineConfig, recovery: str, compared: _Compared) -> TopicReconciliation:
    graves = [place for places in compared.ghosts.values() for place in places]
    topic = compared.folded.topic
    written = write_tombstones(config.kafka, topic, graves, (HEADER, recovery.encode()))
    return TopicReconciliation(
        topic=topic,
        table=str(compared.table),
        rows=compared.rows,
        records=compared.folded.records,
        ghosts=len(compared.ghosts),
        missing=len(compared.missing),
        tombstones=written,
        ghost_examples=_examples(compared.ghosts),
        missing_examples=_examples(compared.missing),
        keyless=compared.folded.keyless,
    )


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


def _topic(config: PipelineConfig, table: str) -> str:
    return f"{config.cdc.topic_prefix}.{table}"


def _examples(keys: Iterable[Key]) -> tuple[str, ...]:
    return tuple(", ".join(map(str, key)) for key, _ in zip(keys, range(EXAMPLES), strict=False))
