"""What checks examine of connectors: how Kafka Connect was told to read the source."""

import json
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import ClassVar, Self

from checks.subjects import SourceServer
from fixtures.server_state import server_state
from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.debezium import CLASS, DEFAULTS, own_connectors
from pipeline.cdc.pairing import History, StoredOffset
from pipeline.config import PipelineConfig

GLANCE = timedelta(seconds=5)  # a rebalance is waited out; a worker that is away is UNKNOWN soon
HISTORY = History("of the server", 0)


def configurations(config: PipelineConfig) -> dict[str, dict[str, str]]:
    """Settings of every connector that reads a PostgreSQL, by name."""
    with ConnectClient(config.connect, GLANCE) as client:
        found = {name: client.config(name) for name in client.names()}
    return {name: told for name, told in found.items() if told["connector.class"].endswith(CLASS)}


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
            offsets = [[vars(one) for one in client.offsets(name)] for name in found]
        return server_state(config.postgres) + json.dumps([found, offsets], sort_keys=True)

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

    def offset(self, name: str) -> StoredOffset | None:
        """The position that is stored for a connector under its present topic prefix, read now.

        Connect does not note of which history it is; that of the server is taken for it.
        """
        with ConnectClient(self.source.config.connect, GLANCE) as client:
            stored = client.offsets(name)
        prefix = self.every[name]["topic.prefix"]
        found = [one.offset for one in stored if one.partition.get("server") == prefix]
        return StoredOffset.of(found[0], HISTORY) if found else None
