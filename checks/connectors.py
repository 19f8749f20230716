"""What checks examine of connectors: how Kafka Connect was told to read the source."""

import json
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, ClassVar, Self

import psycopg
from psycopg import sql

from checks.subjects import SourceServer
from fixtures.server_state import server_state
from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.debezium import DEFAULTS, is_postgres, own_connectors
from pipeline.cdc.state.connect import StoredOffset
from pipeline.cdc.state.parts import Part
from pipeline.cdc.state.read import read
from pipeline.cdc.state.reading import Reading
from pipeline.cdc.topics import end_offsets
from pipeline.config import PipelineConfig
from pipeline.errors import ServerError
from pipeline.postgres.wal.lsn import Lsn
from pipeline.runbooks.reconnect import published

GLANCE = timedelta(seconds=5)  # a rebalance is waited out; a worker that is away is UNKNOWN soon
READS_NO_ROWS = {"never", "no_data"}
"""Values of snapshot.mode with which a connector that lost its place goes on over the gap."""


def configurations(config: PipelineConfig) -> dict[str, dict[str, str]]:
    """Settings of every connector that reads a PostgreSQL, by name."""
    with ConnectClient(config.connect, GLANCE) as client:
        found = {name: client.config(name) for name in client.names()}
    return {name: told for name, told in found.items() if is_postgres(told["connector.class"])}


def _counted(config: PipelineConfig) -> dict[str, list[int]]:
    """Rows of each published table, and where its topic ends."""
    counted = {}
    with psycopg.connect(**config.postgres.conninfo()) as connection:
        for table in published(connection, config.cdc.publication):
            name = sql.Identifier(*table.split(".", 1))
            row = connection.execute(sql.SQL("select count(*) from {}").format(name)).fetchone()
            topic = f"{config.cdc.topic_prefix}.{table}"
            counted[table] = [*(row or ()), *end_offsets(config.kafka, topic).values()]
    return counted


@dataclass(frozen=True)
class Connectors:
    """The running Kafka Connect, and the source that its connectors read; it is only asked."""

    live: ClassVar[bool] = True
    with_connector: ClassVar[bool] = True
    source: SourceServer

    @classmethod
    def of(cls, config: PipelineConfig) -> Self:
        return cls(SourceServer(config))

    @staticmethod
    def state(config: PipelineConfig) -> str:
        """What a fault can change, as text."""
        found = configurations(config)
        with ConnectClient(config.connect, GLANCE) as client:
            statuses = [client.status(name) for name in found]
            # those of a connector that runs move by themselves
            stopped = [status.name for status in statuses if status.state == "STOPPED"]
            offsets = [[vars(one) for one in client.offsets(name)] for name in stopped]
        counted = _counted(config)
        states = [[status.state, *(task.state for task in status.tasks)] for status in statuses]
        told = [found, states, offsets, counted]
        return server_state(config.postgres) + json.dumps(told, sort_keys=True)

    @cached_property
    def every(self) -> dict[str, dict[str, str]]:
        """Settings of every connector that reads a PostgreSQL, with Debezium's own defaults."""
        found = configurations(self.source.config)
        return {name: DEFAULTS | told for name, told in found.items()}

    @cached_property
    def names(self) -> list[str]:
        """Those of this pipeline; a configured one may not be there."""
        with ConnectClient(self.source.config.connect, GLANCE) as client:
            return own_connectors(self.source.config, client)

    @property
    def own(self) -> dict[str, dict[str, str]]:
        """Settings of those of this pipeline that are there."""
        return {name: self.every[name] for name in self.names if name in self.every}

    def trouble(self, name: str) -> str | None:
        """Why a connector does not stream, as Connect tells it now; None when all of it runs."""
        with ConnectClient(self.source.config.connect, GLANCE) as client:
            status, wanted = client.status(name), client.tasks(name)
        less = f"{len(status.tasks)} of {wanted} tasks have a worker"
        return status.trouble or (less if len(status.tasks) < wanted else None)

    def stored(self, name: str) -> dict[str, Any] | None:
        """What is stored for a connector under its present topic prefix, read now."""
        with ConnectClient(self.source.config.connect, GLANCE) as client:
            stored = client.offsets(name)
        prefix = self.every[name]["topic.prefix"]
        return next((one.offset for one in stored if one.partition.get("server") == prefix), None)

    def offset(self, name: str) -> Lsn | None:
        """The position that is stored for a connector; None within a snapshot, and before it."""
        stored = self.stored(name)
        return StoredOffset(partition={}, offset=stored).lsn if stored else None

    def reading(self) -> Reading:
        """The whole state of CDC, read now; ServerError where slots or offsets were not told."""
        found = read(self.source.config)
        needed = (Part.SERVER, Part.SLOTS, Part.CONNECTORS, Part.OFFSETS)
        for missing in found.misses(needed, self.names):
            raise ServerError(str(missing))
        return found
