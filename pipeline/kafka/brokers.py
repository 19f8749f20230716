"""The brokers of a cluster: who leads what, and idle connections to each."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kafka.protocol.metadata import MetadataRequest

from pipeline.errors import ServerError
from pipeline.kafka.wire import Disconnected, Refused, Wire


@dataclass(frozen=True)
class Place:
    """A partition of one life of a topic: made anew, a topic has another id."""

    topic: str
    topic_id: Any
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class Brokers:
    """Asks any broker, or a certain one; each thread that asks at a time has a connection."""

    def __init__(self, servers: str, settings: Mapping[str, Any]) -> None:
        self._servers, self._settings = servers, settings
        self._idle: dict[int | None, list[Wire]] = defaultdict(list)
        self._lock = threading.Lock()
        self._addresses: dict[int, tuple[str, int]] = {}
        self._leaders: dict[tuple[str, int], int] = {}
        self._lives: set[tuple[str, str]] = set()
        self.refresh()

    def close(self) -> None:
        with self._lock:
            for wires in self._idle.values():
                for wire in wires:
                    wire.close()
            self._idle.clear()

    def refresh(self) -> None:
        """Ask again who leads what. Raises ServerError when no broker answers."""
        told = self.ask(MetadataRequest(topics=None, allow_auto_topic_creation=False))
        with self._lock:
            self._addresses = {each.node_id: (each.host, each.port) for each in told.brokers}
            self._leaders = {
                (topic.name, each.partition_index): each.leader_id
                for topic in told.topics
                for each in topic.partitions
            }
            self._lives = {(topic.name, str(topic.topic_id)) for topic in told.topics}

    def exists(self, topic: str, topic_id: object) -> bool:
        """Whether the cluster held this life of the topic when it was last asked."""
        with self._lock:
            return (topic, str(topic_id)) in self._lives

    def leader(self, place: Place) -> int:
        """Who leads a partition as far as known. Raises Disconnected where nobody does."""
        with self._lock:
            node = self._leaders.get((place.topic, place.partition), -1)
        if node < 0:
            raise Disconnected(f"{place} has no leader")
        return node

    def ask(self, request: Any, node: int | None = None) -> Any:  # noqa: ANN401 - generated
        """Send a request to this broker, or to any, and return its answer."""
        with self._wire(node) as wire:
            return wire.ask(request)

    @contextmanager
    def _wire(self, node: int | None) -> Iterator[Wire]:
        """A connection that is idle, or a new one; after an error it is not used again."""
        with self._lock:
            idle = self._idle[node]
            wire = idle.pop() if idle else None
        wire = wire or self._connect(node)
        try:
            yield wire
        except BaseException:
            wire.close()
            self.close()  # what is idle may be as dead
            raise
        with self._lock:
            self._idle[node].append(wire)

    def _connect(self, node: int | None) -> Wire:
        if node is not None:
            with self._lock:
                address = self._addresses.get(node)
            if address is None:
                raise Disconnected(f"broker {node} is not among those of {self._servers}")
            return Wire(*address, self._settings)
        failures: list[ServerError] = []
        for server in self._servers.split(","):
            host, _, port = server.strip().rpartition(":")
            try:
                return Wire(host.strip("[]"), int(port), self._settings)
            except (Disconnected, Refused) as error:
                failures.append(error)
        refused = any(isinstance(error, Refused) for error in failures)
        what = "does not let us in" if refused else "does not answer"
        told = "; ".join(map(str, failures))
        raise ServerError(f"Kafka on {self._servers} {what}: {told}")
