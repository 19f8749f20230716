"""One captured table with its own publication, slot, topics and connector, beside the others."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any

import psycopg
from confluent_kafka import Consumer, TopicPartition
from psycopg import sql

from fixtures.debezium import debezium_config
from fixtures.stacks.protocol import Stack
from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.names import topic_of
from pipeline.cdc.reconcile import HEADER
from pipeline.cdc.topics import end_offsets
from pipeline.config import CdcConfig, PipelineConfig
from pipeline.postgres.replication.publications import Publication, find_publication
from pipeline.postgres.replication.slots import behind, create_slot, drop_slot, find_slot
from pipeline.postgres.wal.lsn import Lsn
from pipeline.wait import wait_until

WITHIN = timedelta(seconds=30)
_NUMBERS = count()  # a topic outlives its test: no two share one


@dataclass(frozen=True)
class Source:
    """A pipeline of one table, `public.<name><suffix>`."""

    name: str
    config: PipelineConfig
    connection: psycopg.Connection[Any]
    connect: ConnectClient
    suffix: str = ""
    moved: str = ""
    """What a transform puts before the names of topics."""

    @property
    def table(self) -> str:
        return f"public.{self.name}{self.suffix}"

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier("public", self.name + self.suffix)

    @property
    def topic(self) -> str:
        return self.moved + topic_of(self.name, self.table)

    @property
    def publication(self) -> Publication:
        found = find_publication(self.connection, self.name)
        assert found is not None
        return found

    def run(self, query: str) -> None:
        """Run one statement; `{}` stands for the table."""
        self.connection.execute(sql.SQL(query).format(self.identifier))

    def wait_delivered(self) -> None:
        """Return once the connector confirmed the last commit."""
        row = self.connection.execute("SELECT pg_current_wal_lsn()::text").fetchone()
        assert row is not None
        lsn = Lsn.parse(row[0])
        wait_until(
            f"{self.name} delivered",
            lambda: behind(self.connection, self.name, lsn),
            within=WITHIN,
        )

    def forget(self) -> None:
        """What a point-in-time recovery does to CDC: no slot, and no publication either."""
        drop_slot(self.connection, self.name)
        self.connection.execute(sql.SQL("DROP PUBLICATION {}").format(sql.Identifier(self.name)))


@contextmanager
def captured(
    stack: Stack,
    kind: str,
    columns: str,
    rows: str,
    *,
    suffix: str = "",
    settings: Mapping[str, str] | None = None,
    moved: str = "",
) -> Iterator[Source]:
    """Make a table with its rows, capture it, wait for all of them; its topic stays behind."""
    name = f"{kind}_{next(_NUMBERS)}"
    cdc = CdcConfig(slot=name, publication=name, topic_prefix=name)
    config = stack.config.model_copy(update={"cdc": cdc})
    with (
        psycopg.connect(**config.postgres.conninfo(), autocommit=True) as connection,
        ConnectClient(config.connect) as connect,
    ):
        source = Source(name, config, connection, connect, suffix, moved)
        source.run(f"CREATE TABLE {{}} ({columns})")
        source.run(f"INSERT INTO {{}} {rows}")
        source.run(f"CREATE PUBLICATION {name} FOR TABLE {{}}")
        create_slot(connection, name)
        asked = {**debezium_config(config, tables=[source.table]), **(settings or {})}
        asked |= _moving(moved) if moved else {}
        connect.create(name, asked)
        connect.wait_running(name)
        wait_until(f"{name} streams", lambda: _snapshotting(source), within=WITHIN)
        yield source
        connect.stop(name)
        connect.wait_stopped(name)
        connect.delete_offsets(name)
        connect.delete(name)
        source.forget()
        source.run("DROP TABLE {}")


def _moving(moved: str) -> dict[str, str]:
    return {
        "transforms": "moved",
        "transforms.moved.type": "org.apache.kafka.connect.transforms.RegexRouter",
        "transforms.moved.regex": "(.*)",
        "transforms.moved.replacement": f"{moved}$1",
    }


def _snapshotting(source: Source) -> str | None:
    """Why it does not stream yet: its slot is active before all rows of the snapshot arrived."""
    slot = find_slot(source.connection, source.name)
    if slot is None or not slot.active:
        return "slot is not active"
    row = source.connection.execute(
        sql.SQL("SELECT count(*) FROM {}").format(source.identifier)
    ).fetchone()
    assert row is not None
    arrived = sum(end_offsets(source.config.kafka, source.topic).values())
    return f"{arrived} of {row[0]} rows arrived" if arrived < row[0] else None


def records(config: PipelineConfig, topic: str) -> list[Any]:
    """Every record of the topic's only partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": config.kafka.bootstrap_servers,
            "group.id": "test",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        read = iter(lambda: consumer.poll(30.0), None)
        return [message for message in _until_end(read) if message.error() is None]
    finally:
        consumer.close()


def reconciled(source: Source) -> list[Any]:
    """Records that a reconciliation wrote."""
    return [r for r in records(source.config, source.topic) if HEADER in dict(r.headers() or [])]


def _until_end(messages: Iterator[Any]) -> Iterator[Any]:
    for message in messages:
        if message.error() is not None:
            return
        yield message
