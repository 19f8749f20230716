"""Connections on which many requests are under way at a time: kafka-python's, in an event loop.

For who writes; what is read comes over `wire`. Beside that one this is the only module that uses
names of kafka-python that are not public: tests/kafka/test_raw.py looks whether they still stand.
"""

import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Any

from kafka.errors import KafkaConnectionError, KafkaError
from kafka.net import KafkaConnectionManager, KafkaNetSocket, NetworkSelector
from kafka.structs import TopicPartition

from pipeline.errors import ServerError
from pipeline.kafka.cluster.wire import LARGEST_FRAME
from pipeline.kafka.log.place import Place

TIMEOUT_MS = 30_000
_BLOCK = 1 << 20
_IN_FLIGHT, _RECONNECT_MS = 1_000, 1_000


class Connections:
    """Requests to the leaders of partitions, answered in the order of sending."""

    def __init__(self, servers: str, settings: Mapping[str, Any]) -> None:
        """Raises ServerError where nobody answers."""
        self._net = NetworkSelector()
        self._manager = _Manager(
            self._net,
            bootstrap_servers=servers.split(","),
            receive_message_max_bytes=LARGEST_FRAME,
            request_timeout_ms=TIMEOUT_MS,
            # kafka-python refuses to send beyond this number, it does not wait
            max_in_flight_requests_per_connection=_IN_FLIGHT,
            reconnect_backoff_max_ms=_RECONNECT_MS,  # 30 s would be spent of the objective
            proxy_url=f"{_Direct.SCHEMES[0]}://",
            **settings,
        )
        self._manager.cluster.need_all_topic_metadata = True  # asking by name may create a topic
        self._net.start()
        try:
            self._manager.bootstrap(TIMEOUT_MS)
        except KafkaError as error:
            self.close()
            raise ServerError(f"Kafka on {servers} does not answer: {error}") from error

    def close(self) -> None:
        self._manager.close()
        self._net.close()

    def ask_leader(self, place: Place, request: Any) -> Any:  # noqa: ANN401 - generated
        """What the leader of a partition answers."""
        return self._manager.run(self.to_leader, place, request)

    def soon(self, ask: Callable[..., Any], *given: object) -> Any:  # noqa: ANN401 - untyped
        """Call it in the event loop, in the order of these calls; returns kafka-python's Future."""
        return self._manager.call_soon(ask, *given)

    async def to_leader(self, place: Place, request: Any) -> Any:  # noqa: ANN401 - generated
        """As `ask_leader`, in the event loop."""
        cluster, at = self._manager.cluster, TopicPartition(place.topic, place.partition)
        node = cluster.leader_for_partition(at)
        if node is None or node < 0:
            await cluster.refresh_metadata(self._manager.least_loaded_node())
            node = cluster.leader_for_partition(at)
        try:
            return await self._manager.send(request, node_id=node)
        except KafkaError:
            cluster.request_update()
            raise


class _Direct(KafkaNetSocket):  # type: ignore[misc]  # kafka-python is not typed
    """Closes the socket when nobody listens: kafka-python leaves it open until it is collected."""

    SCHEMES = ("direct",)

    async def sock_connect(
        self, net: object, sock: socket.socket, sockaddr: object, timeout_at: float | None = None
    ) -> socket.socket:
        try:
            await super().sock_connect(net, sock, sockaddr, timeout_at=timeout_at)
        except BaseException:
            sock.close()
            raise
        return sock


class _Manager(KafkaConnectionManager):  # type: ignore[misc]  # kafka-python is not typed
    """Connections that read what has arrived at once; kafka-python's read 4 KiB at a time."""

    async def _build_transport(self, node: object, timeout_at: float | None = None) -> Any:  # noqa: ANN401 - untyped
        transport = await super()._build_transport(node, timeout_at=timeout_at)
        transport._sock_recv = lambda: _received(transport._sock)  # noqa: SLF001 - no public way
        return transport


def _received(connection: socket.socket) -> tuple[bytes, KafkaError | None]:
    blocks: list[bytes] = []
    error = None
    try:
        while block := connection.recv(_BLOCK):
            blocks.append(block)
        error = KafkaConnectionError("the broker closed the connection")
    except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        pass  # all that has arrived was read
    except OSError as failure:
        error = KafkaConnectionError(str(failure))
    return b"".join(blocks), error
