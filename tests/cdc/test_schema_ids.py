"""The gate asks the registry for the ids that records carry, and decodes records by them."""

import json

import pytest
from confluent_kafka import Producer

from fixtures.stacks.protocol import Stack
from pipeline.cdc.schema_ids import SAMPLE
from pipeline.registry.client import RegistryClient
from pipeline.runbooks.reconnect import problems
from tests.cdc.source import captured, records

pytestmark = pytest.mark.stack
UNKNOWN = 999_999


def test_ids_that_mean_nothing_or_something_else_close_the_gate(stack: Stack) -> None:
    """As after a registry was emptied, or filled anew in another order, under topics that stay."""
    rows = f"SELECT generate_series(1, {SAMPLE})"
    with captured(stack, "ids", "id int PRIMARY KEY", rows) as source:
        assert problems(source.config, source.connection) == []
        event = next(r for r in records(source.config, source.topic) if r.value() is not None)
        with RegistryClient(source.config.registry) as registry:
            text = registry.schema_by_id(int.from_bytes(event.value()[1:5], "big"))
            other = json.dumps({"type": "record", "name": "Lone", "fields": []})
            strange = registry.register(f"{source.name}-other-value", other)
            renamed = text.replace(source.name, f"{source.name}_archive")
            alike = registry.register(f"{source.name}-alike-value", renamed)
        writer = Producer(source.config.kafka.librdkafka())
        for number in (UNKNOWN, UNKNOWN, strange, alike):
            framed = b"\0" + number.to_bytes(4, "big") + event.value()[5:]
            writer.produce(source.topic, framed, event.key())
        assert writer.flush(30) == 0
        source.run("INSERT INTO {} VALUES (1000)")  # what is newest is as its writer meant it
        source.wait_delivered()

        told = problems(source.config, source.connection)
        at = f"{source.topic}[0]@"
        assert [each.startswith(at) for each in told] == [True] * 3, told
        assert f"schema id {UNKNOWN} is unknown to the registry" in told[0], told
        assert "(2 of the records that were looked at)" in told[0], told
        assert f"schema id {strange} is of another schema: cannot decode" in told[1], told
        assert f"schema id {alike} is of another schema: it is called" in told[2], told
        assert problems(source.config, source.connection, [source.topic]) == []
