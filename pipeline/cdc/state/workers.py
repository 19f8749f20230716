"""What Kafka Connect tells of CDC: connectors, their offsets, and what they have written to."""

from collections.abc import Callable
from typing import TypeVar

from pipeline.cdc.connectors import ConnectClient, Described
from pipeline.cdc.debezium import is_postgres, reads, resolved
from pipeline.cdc.state.connect import Connector, StoredOffset, Task, Worker
from pipeline.cdc.state.parts import OF_CONNECT, Part
from pipeline.cdc.state.reading import Unread
from pipeline.cdc.state.settings import masked
from pipeline.config import PipelineConfig
from pipeline.errors import ServerError, without_logins

T = TypeVar("T")


class Workers:
    """One reading of a Connect cluster; what does not answer is noted, and the rest goes on."""

    def __init__(self, config: PipelineConfig, client: ConnectClient) -> None:
        self._config, self._client = config, client
        self.worker: Worker | None = None
        self.connectors: list[Connector] = []
        self.others: list[str] = []
        self.unread: list[Unread] = []

    def read(self) -> None:
        """Read every connector of a PostgreSQL whole, and the names of the others."""
        try:
            names, found = self._client.names(), self._client.described()
        except ServerError as error:
            self.unread += [Unread(part=part, why=str(error)) for part in OF_CONNECT]
            return
        for name, told in found.items():
            if is_postgres(told.config.get("connector.class", "")):
                self.connectors.append(self._connector(name, told))
            else:
                self.others.append(name)
        for name in (name for name in names if name not in found):
            for part in (Part.CONNECTORS, Part.OFFSETS):
                why = "no worker has told of it yet"
                self.unread.append(Unread(part=part, name=name, why=why))
        self.worker = self._ask(Part.PLUGINS, None, self._worker)

    def _connector(self, name: str, told: Described) -> Connector:
        offsets = self._ask(Part.OFFSETS, name, lambda: self._client.offsets(name))
        topics = self._ask(Part.TOPICS, name, lambda: self._client.topics(name))
        config, digests = masked(name, told.config)
        named = self._config.connect.connectors
        own = name in named if named else reads(self._config, told.config)
        return Connector(
            name=name,
            own=own,
            resolved=resolved(self._config, config) if own else {},
            config=config,
            digests=digests,
            state=told.status.state,
            tasks=tuple(
                Task(id=task.id, state=task.state, cause=without_logins(task.cause))
                for task in told.status.tasks
            ),
            wanted=told.wanted,
            offsets=tuple(
                StoredOffset(partition=one.partition, offset=one.offset) for one in offsets or ()
            ),
            topics=tuple(topics or ()),
        )

    def _worker(self) -> Worker:
        told, plugins = self._client.worker(), self._client.plugins()
        return Worker(
            version=told.get("version", ""),
            cluster_id=told.get("kafka_cluster_id", ""),
            plugins={name: version for name, version in plugins.items() if is_postgres(name)},
        )

    def _ask(self, part: Part, name: str | None, ask: Callable[[], T]) -> T | None:
        try:
            return ask()
        except ServerError as error:
            self.unread.append(Unread(part=part, name=name, why=str(error)))
            return None
