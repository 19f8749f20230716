"""The brokers of a cluster: who leads what, and idle connections to each."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from kafka.protocol.metadata import MetadataRequest

from pipeline.errors import ServerError
from pipeline.kafka.cluster.wire import Disconnected, Refused, Wire
from pipeline.kafka.log.place import Place

QUOTA_TOLD_EVERY = 10.0
"""Seconds between two lines about a quota."""


class Quota:
    """What a quota of the brokers holds back: they name the time, and are deaf for as long.

    See KIP-219: the answer comes at once, a held back fetch without data, and then the broker
    reads nothing more from that connection.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._lock, self._said, self._waited = tell, threading.Lock(), 0.0, 0.0

    def wait_out(self, milliseconds: int) -> None:
        """Wait as long as the broker said; all waiting is told, a few times a minute."""
        if milliseconds <= 0:
            return
        seconds = milliseconds / 1000
        with self._lock:
            self._waited += seconds
            due = time.monotonic() - self._said >= QUOTA_TOLD_EVERY
            if due:
                self._said = time.monotonic()
        if due:
            self._tell(
                f"a quota of the brokers holds us back, {self._waited:,.1f} s so far over all "
                "connections"
            )
        time.sleep(seconds)  # the broker names the time, there is nothing to look at


class Brokers:
    """Asks any broker, or a certain one; each thread that asks at a time has a connection.

    Answers that a quota holds back are waited out; `tell` hears of it.
    """

    def __init__(
        self,
        servers: str,
        settings: Mapping[str, Any],
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._servers, self._settings, self.quota = servers, settings, Quota(tell)
        self._idle: dict[int | None, list[Wire]] = defaultdict(list)
        self._lock = threading.Lock()
        self._addresses: dict[int, tuple[str, int]] = {}
        self._leaders: dict[tuple[str, int], int] = {}
        self._lives: set[tuple[str, str]] = set()
        self._unled: dict[tuple[str, int], float] = {}
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
            now = time.monotonic()
            self._unled = {
                at: self._unled.get(at, now) for at, node in self._leaders.items() if node < 0
            }

    def exists(self, topic: str, topic_id: object) -> bool:
        """Whether the cluster held this life of the topic when it was last asked."""
        with self._lock:
            return (topic, str(topic_id)) in self._lives

    def nodes(self) -> list[int]:
        """Numbers of the brokers that were there when they were last asked."""
        with self._lock:
            return sorted(self._addresses)

    def leader(self, place: Place) -> int:
        """Who leads a partition as far as known. Raises Disconnected where nobody does."""
        with self._lock:
            node = self._leaders.get((place.topic, place.partition), -1)
        if node < 0:
            raise Disconnected(f"{place} has no leader")
        return node

    def unled_for(self, place: Place) -> float:
        """Tell for how many seconds it has been known that nobody leads the partition."""
        with self._lock:
            since = self._unled.get((place.topic, place.partition))
        return 0.0 if since is None else time.monotonic() - since

    def ask(self, request: Any, node: int | None = None) -> Any:  # noqa: ANN401 - generated
        """Send a request to this broker, or to any, and return its answer.

        A request may arrive twice: a connection that was idle may have been closed meanwhile
        (connections.max.idle.ms of the brokers), which shows only when it is used again.
        """
        with self._lock:
            idle = self._idle[node]
            wire = idle.pop() if idle else None
        if wire is not None:
            try:
                return self._over(wire, request, node)
            except Disconnected:
                pass  # the others are as old, and were closed by `_over`
        return self._over(self._connect(node), request, node)

    def _over(self, wire: Wire, request: Any, node: int | None) -> Any:  # noqa: ANN401 - generated
        """Ask over a connection, and keep it; after an error it is not used again."""
        try:
            told = wire.ask(request)
        except BaseException:
            wire.close()
            self.close()  # what is idle may be as dead
            raise
        self.quota.wait_out(getattr(told, "throttle_time_ms", 0) or 0)
        with self._lock:
            self._idle[node].append(wire)
        return told

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
        told = "; ".join(map(str, failures))
        if any(isinstance(error, Refused) for error in failures):
            raise ServerError(f"Kafka on {self._servers} does not let us in: {told}")
        raise Disconnected(f"Kafka on {self._servers} does not answer: {told}")
