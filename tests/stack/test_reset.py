"""After a reset nothing of before is left, and the proof of that can fail."""

import subprocess
from datetime import timedelta

import httpx
import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from fixtures.stacks import nonce, reset
from fixtures.stacks.protocol import Component, Stack
from pipeline.cdc.connectors import ConnectClient
from pipeline.config import PipelineConfig
from pipeline.errors import ServerError
from pipeline.repository.marker import MARKER
from pipeline.wait import wait_until

pytestmark = pytest.mark.stack


def test_reset_empties_every_system(stack: Stack) -> None:
    inhabit(stack)
    found = {component: " ".join(_inhabitants(stack, component)) for component in Component}
    for component, things in {
        Component.POSTGRES: ("database shop", "relation orders", "role clerk", "slot s", "publica"),
        Component.KAFKA: ("topic orders", "consumer group readers"),
        Component.CONNECT: ("connector lines", "source offsets"),
        Component.REGISTRY: ("subject orders-value",),
    }.items():
        assert [thing for thing in things if thing not in found[component]] == []
    before = stack.nonce

    stack.reset()

    assert stack.nonce != before
    for component in Component:
        assert _inhabitants(stack, component) == []
        nonce.confirm(stack, component)
    assert [path.name for path in stack.config.repository.path.iterdir()] == [MARKER]
    assert httpx.get(f"{stack.config.registry.url}/schemas/ids/1").status_code == 404


def test_a_server_with_another_nonce_is_not_touched(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nonce, "read", lambda _config, _component: "another")
    with pytest.raises(ServerError, match=r"'another'.*nothing may be damaged there"):
        nonce.confirm(stack, Component.POSTGRES)


def test_reset_refuses_while_a_drill_left_a_process(stack: Stack) -> None:
    with subprocess.Popen(["/bin/sleep", "600"], cwd=stack.folder / "scratch") as left:
        try:
            with pytest.raises(ServerError, match=rf"process {left.pid} \(/bin/sleep 600\)"):
                stack.reset()
        finally:
            left.kill()


def inhabit(stack: Stack) -> None:
    """Leave something of every kind in every system."""
    with psycopg.connect(**stack.config.postgres.conninfo(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE shop")
        connection.execute("CREATE ROLE clerk")
        connection.execute("CREATE TABLE orders (id int PRIMARY KEY)")
        connection.execute("CREATE PUBLICATION p FOR TABLE orders")
        connection.execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
    _inhabit_kafka(stack.config)
    _inhabit_connect(stack)
    subject = f"{stack.config.registry.url}/subjects/orders-value"
    httpx.post(f"{subject}/versions", json={"schema": '{"type": "string"}'}).raise_for_status()
    httpx.delete(subject).raise_for_status()  # softly: it is still there for whoever asks
    (stack.config.repository.path / "left").touch()


def _inhabit_kafka(config: PipelineConfig) -> None:
    servers: dict[str, str | int | float | bool] = {
        "bootstrap.servers": config.kafka.bootstrap_servers
    }
    admin = AdminClient(servers)
    for created in admin.create_topics([NewTopic("orders", 1, 1)]).values():
        created.result()
    producer = Producer(servers)
    producer.produce("orders", b"value")
    producer.flush(10)
    reader = Consumer(servers | {"group.id": "readers"})
    reader.commit(offsets=[TopicPartition("orders", 0, 1)], asynchronous=False)
    reader.close()


def _inhabit_connect(stack: Stack) -> None:
    lines = stack.folder / "scratch" / "lines"
    lines.write_text("one\n")
    connector = {
        "connector.class": "org.apache.kafka.connect.file.FileStreamSourceConnector",
        "file": str(lines),
        "topic": "orders",
    }
    with ConnectClient(stack.config.connect) as client:
        client.create("lines", connector)

        def offsets() -> str | None:
            return None if client.offsets("lines") else "no offsets"

        wait_until("offsets of lines", offsets, within=timedelta(seconds=20))


def _inhabitants(stack: Stack, component: Component) -> list[str]:
    return list(reset.inhabitants(stack.config, component))
