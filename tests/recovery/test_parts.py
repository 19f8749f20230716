"""A database is recovered although Connect, Kafka or the registry are down: they come later."""

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from pipeline.config import (
    ConnectConfig,
    KafkaConfig,
    PipelineConfig,
    RegistryConfig,
    RepositoryConfig,
)
from pipeline.errors import ServerError
from pipeline.postgres.replay.targets import Target
from pipeline.postgres.server import clients
from pipeline.runbooks import parts
from pipeline.runbooks.parts import Part
from pipeline.runbooks.point_in_time import PointInTimeRecovery, new_recovery
from tests.recovery.history import Source


@pytest.fixture
def listening() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


def pipeline(*, connect: int, registry: str, kafka: str) -> PipelineConfig:
    return PipelineConfig(
        connect=ConnectConfig(url=f"http://127.0.0.1:{connect}"),
        registry=RegistryConfig(url=registry),
        kafka=KafkaConfig(bootstrap_servers=kafka),
        repository=RepositoryConfig(path="unused"),
    )


def test_what_takes_a_connection_is_not_down(listening: int) -> None:
    here = f"127.0.0.1:{listening}"
    config = pipeline(connect=listening, registry=f"http://{here}/apis", kafka=here)
    assert parts.down(config) == {}


def test_one_broker_that_answers_is_enough(listening: int, closed: int) -> None:
    brokers = f"PLAINTEXT://127.0.0.1:{closed}, [::ffff:127.0.0.1]:{listening}"
    assert parts.down(pipeline(connect=listening, registry="", kafka=brokers)) == {}


def test_each_part_that_is_down_is_named_with_its_place(listening: int, closed: int) -> None:
    config = pipeline(
        connect=closed, registry=f"http://127.0.0.1:{closed}", kafka=f"127.0.0.1:{listening}"
    )
    found = parts.down(config)
    assert set(found) == {Part.CONNECT, Part.REGISTRY}
    assert all(f"127.0.0.1:{closed}: Connection refused" in why for why in found.values())
    assert [line.split()[1] for line in parts.lines(found)] == ["connectors:", "registry:"]


def test_a_worker_without_its_brokers_is_of_no_use(listening: int, closed: int) -> None:
    """It answers what it knows, and can neither stop a connector nor deliver anything."""
    found = parts.down(pipeline(connect=listening, registry="", kafka=f"127.0.0.1:{closed}"))
    assert found[Part.CONNECT] == "its brokers are down"


def test_the_database_comes_back_while_all_else_is_down(source: Source) -> None:
    """Clients wait for CDC, and are let in without it by the operator's word."""
    source.back_up("one")
    source.expect(source.write("kept").after)
    identity = source.backups["one"].manifest.facts["system_identifier"]
    said: list[str] = []
    journal = new_recovery(source.config)
    target = Target.parse("latest")
    first = PointInTimeRecovery(source.config, target, journal, identity, progress=said.append)
    with pytest.raises(ServerError, match=r"connectors is down: .*go on with --resume; or let"):
        first.run()
    assert set(journal.done()["check_identity"]["down"]) >= {Part.CONNECT, Part.KAFKA}
    assert any("kafka" in line and "left for the step reconnect" in line for line in said)
    assert source.run("select note from notes") == "kept"
    clients.refuse_unless_kept_out(source.config.postgres)
    PointInTimeRecovery(source.config, target, journal, identity, cdc=False).run()
    assert "left" in journal.done()["let_clients_in"]
