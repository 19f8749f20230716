"""CDC is brought back by steps that are killed at any call and begun again from the first."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from pipeline.cdc import resnapshot as steps
from pipeline.cdc.connectors import ConnectClient, ConnectorOffset, ConnectorStatus, TaskStatus
from pipeline.errors import ServerError
from pipeline.postgres.replication.publications import Publication
from pipeline.postgres.replication.slots import Slot
from pipeline.postgres.wal.lsn import Lsn

PUBLICATION = Publication("shop", "postgres", True, ("insert",), False, "none", (), ())


class Killed(BaseException):
    """The recovery was killed here."""


@dataclass
class World:
    """A server and a worker, as far as the steps see them. Each call can be the last one."""

    dies_at: int = -1
    calls: int = 0
    clock: int = 0
    running: bool = True
    published: bool = False
    slot: int | None = None
    offsets: list[ConnectorOffset] = field(
        default_factory=lambda: [ConnectorOffset({}, {"ts_usec": 0, "lsn": 7})]
    )
    slots_made: int = 0
    reread_of: int | None = None
    """The slot that stood when the rows were read last."""

    def called(self) -> None:
        """Die here, if it is time: before a call took effect, or before its answer came."""
        self.calls += 1
        if self.calls == self.dies_at:
            raise Killed

    @property
    def active(self) -> bool:
        return self.running and self.slot is not None


class Connect(ConnectClient):
    """The worker's REST API, of one connector."""

    def __init__(self, world: World) -> None:
        self.url, self._world = "http://worker", world

    def stop(self, name: str) -> None:  # noqa: ARG002
        self._world.called()
        self._world.running = False
        self._world.called()

    def resume(self, name: str) -> None:  # noqa: ARG002
        world = self._world
        world.called()
        world.running = True
        if not world.offsets:
            world.reread_of = world.slot
            world.offsets = [ConnectorOffset({}, {"ts_usec": world.clock + 1, "lsn": 9})]
        world.called()

    def status(self, name: str) -> ConnectorStatus:
        self._world.called()
        state = "RUNNING" if self._world.running else "STOPPED"
        tasks = (TaskStatus(0, state, "worker"),) if self._world.running else ()
        return ConnectorStatus(name, state, tasks)

    def config(self, name: str) -> dict[str, str]:  # noqa: ARG002
        self._world.called()
        return {"snapshot.mode": "no_data"}

    def put_config(self, name: str, config: Any) -> None:  # noqa: ANN401, ARG002
        self._world.called()

    def offsets(self, name: str) -> list[ConnectorOffset]:  # noqa: ARG002
        self._world.called()
        return self._world.offsets

    def delete_offsets(self, name: str) -> None:  # noqa: ARG002
        self._world.called()
        if self._world.running:
            raise ServerError("HTTP 400: offsets of a connector that is not STOPPED")
        self._world.offsets = []
        self._world.called()


class Server:
    """The connection: only the clock is asked over it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def execute(self, _query: str) -> "Server":
        self._world.called()
        self._world.clock += 10
        return self

    def fetchone(self) -> tuple[int]:
        return (self._world.clock,)


def use(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the steps reach the world's slot and publication."""

    def recreate(*_: object) -> list[str]:
        world.called()
        world.published = True
        world.called()
        return []

    def find(_connection: object, name: str) -> Slot | None:
        world.called()
        if world.slot is None:
            return None
        return Slot(name, "pgoutput", "shop", world.active, Lsn(1), Lsn(1), "reserved")

    def drop(*_: object) -> None:
        world.called()
        if world.active:
            raise ServerError("slot 'shop' is active: stop its connector before dropping")
        world.slot = None
        world.called()

    def create(_connection: object, name: str, **_flags: object) -> Slot:
        world.called()
        if world.slot is not None or not world.published:
            raise ServerError("a slot stands already, or before its publication")
        world.slots_made += 1
        world.slot = world.slots_made
        world.called()
        return Slot(name, "pgoutput", "shop", False, Lsn(1), Lsn(1), "reserved")

    for name, act in (
        ("recreate", recreate),
        ("find_slot", find),
        ("drop_slot", drop),
        ("create_slot", create),
    ):
        monkeypatch.setattr(steps, name, act)


def bring_back(world: World) -> None:
    """Run the steps, from the first."""
    connect, server = Connect(world), Server(world)
    steps.stop_connectors(connect, ["shop"])
    steps.prepare_source(server, PUBLICATION, "shop", within=timedelta(0))  # type: ignore[arg-type]
    steps.resnapshot(connect, server, "shop", "shop", within=timedelta(0))  # type: ignore[arg-type]


def twice(world: World) -> None:
    """Also when it was done already, as when what follows has failed."""
    bring_back(world)
    bring_back(world)


def test_every_step_can_be_repeated_wherever_it_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the end the rows were read after the slot that is there now, and it has its reader."""
    whole = World()
    use(whole, monkeypatch)
    twice(whole)
    assert whole.active
    for moment in range(1, whole.calls + 1):
        world = World(dies_at=moment)
        use(world, monkeypatch)
        with pytest.raises(Killed):
            twice(world)
        bring_back(world)
        assert world.active, moment
        assert world.reread_of == world.slot, f"killed at call {moment}: a gap is not read again"


def test_a_slot_that_somebody_reads_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(slot=1)
    use(world, monkeypatch)
    with pytest.raises(ServerError, match="'shop' is active"):
        steps.prepare_source(
            Server(world),  # type: ignore[arg-type]
            PUBLICATION,
            "shop",
            within=timedelta(0),
        )
