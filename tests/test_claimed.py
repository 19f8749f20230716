"""What an offset says was delivered is looked for wherever the connector may have sent it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.cdc.claimed import Claim, Look, claimable
from pipeline.cdc.needs import Need
from pipeline.cdc.state.connect import Connector
from pipeline.cdc.wire import Decoder
from pipeline.postgres.wal.lsn import Lsn

CLAIM = Claim("public.orders", Lsn(700), 981)
ROUTED = {"transforms": "r", "transforms.r.type": "org.apache.kafka.connect.transforms.RegexRouter"}
LOGICAL = {
    "transforms": "unwrap, shards",
    "transforms.unwrap.type": "io.debezium.transforms.ExtractNewRecordState",
    "transforms.shards.type": "io.debezium.transforms.ByLogicalTableRouter",
}
NAMED = {"topic.naming.strategy": "io.debezium.schema.DefaultUnicodeTopicNamingStrategy"}
DELIMITED = {"topic.delimiter": "_"}
FLAT = {
    "transforms": "u",
    "transforms.u.type": "io.debezium.transforms.ExtractNewRecordState",
}
Topics = Mapping[str, Iterable[bytes]]


@dataclass(frozen=True)
class Record:
    """A record of a topic as a driver gives it."""

    of_value: bytes | None

    def value(self) -> bytes | None:
        return self.of_value


def event(table: str = "orders", lsn: int = 700, xid: int = 981) -> bytes:
    source = {"schema": "public", "table": table, "lsn": lsn, "txId": xid}
    return json.dumps({"op": "c", "after": {"id": 1}, "source": source}).encode()


def no_registry(number: int) -> str:
    raise AssertionError(number)


def needs(
    settings: Mapping[str, str],
    topics: Topics,
    *claims: Claim,
    known: Iterable[str] | None = None,
    use: str = "",
) -> list[Need]:
    """What is told of claims; `known` are the topics that Connect tells of."""
    written = tuple(topics if known is None else known)
    connector = Connector(name="shop", own=True, config=dict(settings), topics=written)
    look = Look(connector, "shop", Decoder(no_registry), {CLAIM.table: use})

    def read(topic: str) -> Iterable[Record]:
        return [Record(value) for value in topics.get(topic, ())]

    return list(look.needs(claims or [CLAIM], [read]))


@pytest.mark.parametrize(
    "known", [None, ()], ids=["told by Connect", "topic tracking off or reset"]
)
def test_a_change_that_is_in_no_topic_is_missed_whether_or_not_connect_tells_of_topics(
    known: Iterable[str] | None,
) -> None:
    there = {"shop.public.orders": [event()]}
    gone: Topics = {"shop.public.orders": [event(lsn=699), event("items")]}
    assert needs({}, there, known=known) == []
    (need,) = needs({}, gone, known=known)
    assert need.reread
    assert "transaction 981 is not in shop.public.orders" in need.what


def test_a_change_whose_topic_does_not_exist_is_missed() -> None:
    (need,) = needs({}, {})
    assert need.reread
    assert "is not in shop.public.orders" in need.what


@pytest.mark.parametrize("settings", [ROUTED, LOGICAL, NAMED, DELIMITED])
def test_where_topics_have_other_names_it_is_looked_for_by_what_events_say(
    settings: Mapping[str, str],
) -> None:
    other = [event("items", 700), json.dumps({"ts_ms": 1}).encode()]
    assert needs(settings, {"a": other, "all-orders": [event(lsn=1), event()]}) == []
    (need,) = needs(settings, {"a": [event("items")], "all-orders": [event(lsn=1)]})
    assert need.reread
    assert "is not in any of its 2 topics" in need.what


def test_where_topics_have_other_names_and_nobody_tells_them_it_is_unknown() -> None:
    (need,) = needs(ROUTED, {"all-orders": [event()]}, known=())
    assert need.reread
    assert "UNKNOWN" in need.what
    assert "transform r (RegexRouter) names its topics, and Connect tells of none" in need.what


def test_what_cannot_be_read_is_unknown_and_hides_nothing() -> None:
    assert needs({}, {"shop.public.orders": [b"?", event()]}) == []
    (need,) = needs({}, {"shop.public.orders": [b"?", event(lsn=1)]})
    assert need.reread
    assert "UNKNOWN whether its offset tells the truth: shop.public.orders has records" in need.what


def test_events_without_an_envelope_tell_nothing() -> None:
    flat = {"shop.public.orders": [json.dumps({"id": 1}).encode()]}
    (need,) = needs(FLAT, flat)
    assert need.reread
    assert "UNKNOWN" in need.what
    assert "without their source" in need.what


@pytest.mark.parametrize(
    "settings",
    [
        {"table.include.list": r"public\.items"},
        {"table.exclude.list": "public.ord.*"},
        {"schema.exclude.list": "public"},
    ],
)
def test_a_table_that_the_connector_leaves_out_is_owed_no_event(
    settings: Mapping[str, str],
) -> None:
    assert needs(settings, {}) == []


def test_events_of_an_outbox_are_told_to_be_unknown_and_not_read_again() -> None:
    (need,) = needs({}, {}, use="outbox")
    assert "UNKNOWN" in need.what
    assert "of an outbox" in need.what
    assert not need.reread


def test_a_signal_is_owed_no_event() -> None:
    assert needs({}, {}, use="signals") == []


def test_all_of_a_topic_is_read_where_its_end_does_not_tell() -> None:
    connector = Connector(name="shop", own=True, config={}, topics=())
    look = Look(connector, "shop", Decoder(no_registry))
    whole: list[Any] = [Record(event()), Record(None), *[Record(event(lsn=1)) for _ in range(400)]]
    assert list(look.needs([CLAIM], [lambda _: whole[-200:], lambda _: whole])) == []


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({}, ["I", "U", "D"]),
        ({"skipped.operations": "t, d"}, ["I", "U"]),
        ({"skip.messages.without.change": "true"}, ["I", "D"]),
    ],
)
def test_a_change_that_is_skipped_is_owed_no_event(
    settings: dict[str, str], kinds: list[str]
) -> None:
    assert claimable(Connector(name="shop", own=True, config=settings)) == kinds
