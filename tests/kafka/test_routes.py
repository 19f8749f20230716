"""Which topic has a table's events: by name, or by what the events say where names do not tell."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from fixtures.stacks.protocol import Stack
from pipeline.cdc.routing import Route, routes
from pipeline.cdc.topics import live_keys
from pipeline.cdc.wire import Decoder
from pipeline.config import PipelineConfig
from pipeline.errors import ServerError
from tests.kafka.topics import create, producer
from tests.recovery.workers import Settings, worker

CONNECTOR = {
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "slot.name": "debezium",
    "database.dbname": "postgres",
    "topic.prefix": "shop",
}
ROUTER = {
    "transforms": "r",
    "transforms.r.type": "org.apache.kafka.connect.transforms.RegexRouter",
}


def no_registry(number: int) -> str:
    raise AssertionError(number)


def event(table: str, number: int = 1) -> tuple[bytes, bytes]:
    schema, name = table.split(".")
    source = {"schema": schema, "table": name, "lsn": number, "txId": number}
    told = {"op": "c", "after": {"id": number}, "source": source}
    return json.dumps({"id": number}).encode(), json.dumps(told).encode()


def written(broker: Stack, topics: Mapping[str, list[tuple[bytes, bytes]]]) -> dict[str, str]:
    """Produce these records, each topic under a new name; the names by those that were asked."""
    made = producer(broker.config.kafka)
    names = {topic: create(broker.config.kafka, topic) for topic in topics}
    for topic, records in topics.items():
        for key, value in records:
            made.produce(names[topic], value, key)
    assert made.flush(60) == 0
    return names


def found(
    config: PipelineConfig, settings: Settings, written_to: list[str], *tables: str
) -> dict[str, Route]:
    told = {"shop": {**CONNECTOR, **settings}}
    with worker(told, topics={"shop": written_to}) as url:
        connect = config.connect.model_copy(update={"url": url})
        return routes(config.model_copy(update={"connect": connect}), tables)


def test_a_topic_is_known_by_its_name_where_nothing_gives_it_another(broker: Stack) -> None:
    """Connect is not asked for topics, which it may not tell."""
    told = found(broker.config, {}, [], "public.orders", '"public"."Großes"')
    assert {name: one.topic for name, one in told.items()} == {
        "public.orders": "shop.public.orders",
        "public.Großes": "shop.public.Gro_es",
    }
    assert not any(one.by_source for one in told.values())


def test_else_by_what_its_events_say(broker: Stack) -> None:
    topics = {
        "first": [event("public.orders", n) for n in range(500)],
        "both": [event("public.items"), event("public.parts")],
        "half": [event("public.parts", 2)],
        "flat": [(b"1", b'{"id": 1}'), (b"2", b"no event at all")],
    }
    names = written(broker, topics)
    wanted = ("public.orders", "public.items", "public.parts", "public.gone")
    told = found(broker.config, ROUTER, [*names.values(), "no-such-topic"], *wanted)
    where = {name: one.topic for name, one in told.items()}
    assert where["public.orders"] == names["first"]
    assert where["public.items"] == names["both"]
    assert (where["public.parts"], where["public.gone"]) == (None, None)
    parts = " and ".join(sorted((names["both"], names["half"])))
    assert told["public.parts"].why == (
        f"transform r (RegexRouter) of shop names topics, and they are in {parts}"
    )
    with pytest.raises(
        ServerError, match=r"events of public\.gone are is UNKNOWN: .* none of the 5"
    ):
        _ = told["public.gone"].known


def test_a_topic_of_two_tables_is_not_folded_for_one(broker: Stack) -> None:
    """Its first and last records are of one table, so that only who reads all of it can tell."""
    many = [event("public.orders", n) for n in range(900)]
    names = written(broker, {"all": [*many[:450], event("public.items", 7), *many[450:]]})
    route = found(broker.config, ROUTER, [*names.values()], "public.orders")["public.orders"]
    assert route.topic == names["all"]
    alone: Any = route.is_event(Decoder(no_registry))
    with pytest.raises(ServerError, match=r"has events of public\.items beside"):
        live_keys(broker.config.kafka, route.known, alone)


def test_without_its_topics_told_nobody_knows(broker: Stack) -> None:
    told = found(broker.config, ROUTER, [], "public.orders")["public.orders"]
    assert told.topic is None
    assert "and Connect tells of none: " in told.why
