"""Brokers of a test's own, with the listeners and the neighbours that it needs."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Self

from fixtures import cache
from fixtures.stacks import nonce, training
from fixtures.stacks.kafka import KafkaServer
from fixtures.stacks.ports import Ports
from fixtures.stacks.runs import Run

Listeners = Mapping[str, tuple[str, Mapping[str, str]]]
"""By name: the security protocol, and settings with `listener.name.<name>.` before them."""


@contextmanager
def listening(
    listeners: Listeners, also: Mapping[str, str] | None = None
) -> Iterator[dict[str, str]]:
    """One broker; yields the address of each listener. PLAINTEXT is one of them, for itself."""
    with _Room() as room:
        names = ["PLAINTEXT", *listeners]
        at = {name: room.address() for name in names}
        told = [f"{name}://{address}" for name, address in at.items()]
        protocols = {name: protocol for name, (protocol, _) in listeners.items()}
        more = {
            "listeners": ",".join([*told, f"CONTROLLER://127.0.0.1:{room.quorum}"]),
            "advertised.listeners": ",".join(told),
            "listener.security.protocol.map": ",".join(
                f"{name}:{protocols.get(name, 'PLAINTEXT')}" for name in [*names, "CONTROLLER"]
            ),
        } | {
            f"listener.name.{name.lower()}.{key}": value
            for name, (_, settings) in listeners.items()
            for key, value in settings.items()
        }
        room.start("kafka", at["PLAINTEXT"], more | dict(also or {}))
        yield at


@contextmanager
def pair() -> Iterator[tuple[str, KafkaServer]]:
    """Two brokers; yields their addresses, and the second one, which may be killed.

    The first is the controller as well. Who dies is fenced after three seconds. Groups and
    transactions outlive either.
    """
    with _Room() as room:
        soon = {
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "offsets.topic.replication.factor": "2",
            "transaction.state.log.replication.factor": "2",
        }
        one, two = room.address(), room.address()
        room.start("kafka-1", one, soon)
        alone = {
            "process.roles": "broker",
            "node.id": "2",
            "listeners": f"PLAINTEXT://{two}",
        }
        yield f"{one},{two}", room.start("kafka-2", two, soon | alone)


class _Room:
    """A run's folder and ports; at its end the servers are dead and the folder is gone."""

    def __enter__(self) -> Self:
        self._cluster, self._leaving = nonce.new(), ExitStack()
        self._run = Run.begin(cache.folder() / "runs")
        self._leaving.callback(self._run.end)
        self._ports = Ports()
        self._leaving.callback(self._ports.close)
        self.quorum = self._ports.take()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.close()

    def address(self) -> str:
        return f"127.0.0.1:{self._ports.take()}"

    def start(self, name: str, address: str, more: Mapping[str, str]) -> KafkaServer:
        server = KafkaServer(
            folder=self._run.folder / name,
            log=self._run.folder / f"{name}.log",
            artifacts=training.prepared(),
            address=address,
            nonce=self._cluster,
            quorum=self.quorum,
            more=more,
        )
        self._leaving.callback(server.kill)
        server.start()
        return server
