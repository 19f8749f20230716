"""The fold of change events, by Avro records as Debezium writes them."""

import io
import json
from collections.abc import Iterator
from typing import Any

import fastavro
import pytest

from fixtures.ledger import Survivor
from fixtures.sink import Decoder, Fold, SinkError
from fixtures.workload.rows import UNAVAILABLE
from fixtures.workload.schema import DOCUMENTS
from pipeline.config import RegistryConfig

KEY = {"type": "record", "name": "Key", "fields": [{"name": "id", "type": "long"}]}
ROW = {
    "type": "record",
    "name": "Value",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "title", "type": "string"},
        {
            "name": "meta",
            "type": {
                "type": "string",
                "connect.version": 1,
                "connect.name": "io.debezium.data.Json",
            },
        },
        {"name": "body", "type": ["null", "string"], "default": None},
        {"name": "rev", "type": "long"},
    ],
}
SOURCE = {
    "type": "record",
    "name": "Source",
    "fields": [
        {"name": "txId", "type": ["null", "long"]},
        {"name": "lsn", "type": ["null", "long"]},
    ],
}
ENVELOPE = {
    "type": "record",
    "name": "Envelope",
    "fields": [
        {"name": "before", "type": ["null", ROW], "default": None},
        {"name": "after", "type": ["null", "Value"], "default": None},
        {"name": "source", "type": SOURCE},
        {"name": "op", "type": "string"},
    ],
}
FULL = {"id": 1, "title": "t", "meta": '{"a": 1}', "body": "long", "rev": 1}


def avro(number: int, schema: dict[str, Any], record: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), record)
    return b"\0" + number.to_bytes(4, "big") + stream.getvalue()


class Topic:
    """Feeds a fold with events of one document."""

    def __init__(self, fold: Fold) -> None:
        self.fold = fold
        self.key = avro(1, KEY, {"id": 1})

    def event(self, op: str, lsn: int, **after: object) -> None:
        record = {"after": after or None, "op": op, "source": {"txId": 7, "lsn": lsn}}
        self.fold.take("documents", self.key, avro(2, ENVELOPE, record), "here")

    def tombstone(self) -> None:
        self.fold.take("documents", self.key, None, "here")

    def rows(self) -> list[Survivor]:
        return list(self.fold.survivors())


@pytest.fixture
def topic() -> Iterator[Topic]:
    decoder = Decoder(RegistryConfig(url="http://127.0.0.1:9/unused"))
    decoder.learn(1, json.dumps(KEY))
    decoder.learn(2, json.dumps(ENVELOPE))
    with Fold(decoder) as fold:
        yield Topic(fold)


def survivor(**changes: object) -> Survivor:
    return Survivor("documents", "1", DOCUMENTS.state(FULL | changes))


@pytest.mark.parametrize("op", ["c", "r", "u"])
def test_a_row_is_what_its_last_event_says(topic: Topic, op: str) -> None:
    topic.event("c", 10, **FULL)
    topic.event(op, 20, **FULL | {"title": "new", "rev": 2})
    assert topic.rows() == [survivor(title="new", rev=2)]


def test_an_unavailable_body_is_the_earlier_one(topic: Topic) -> None:
    topic.event("c", 10, **FULL)
    topic.event("u", 20, **FULL | {"title": "new", "body": UNAVAILABLE, "rev": 2})
    assert topic.rows() == [survivor(title="new", rev=2)]
    assert topic.fold.unresolved == 0


def test_an_unavailable_body_that_no_event_carries_equals_nothing(topic: Topic) -> None:
    topic.event("u", 20, **FULL | {"body": UNAVAILABLE})
    (row,) = topic.rows()
    assert row.state not in {survivor().state, DOCUMENTS.state(FULL | {"body": UNAVAILABLE})}
    assert topic.fold.unresolved == 1


def test_a_deleted_row_is_gone_with_or_without_its_tombstone(topic: Topic) -> None:
    topic.event("c", 10, **FULL)
    topic.event("d", 20)
    assert topic.rows() == []


def test_a_tombstone_alone_deletes(topic: Topic) -> None:
    topic.event("c", 10, **FULL)
    topic.tombstone()
    assert topic.rows() == []


def test_a_body_is_not_kept_over_a_deletion(topic: Topic) -> None:
    topic.event("c", 10, **FULL)
    topic.event("d", 20)
    topic.event("c", 30, **FULL | {"body": UNAVAILABLE})
    topic.rows()
    assert topic.fold.unresolved == 1


def test_events_delivered_again_are_counted_and_change_nothing(topic: Topic) -> None:
    for _ in range(2):
        topic.event("c", 10, **FULL)
        topic.event("u", 20, **FULL | {"rev": 2})
    assert topic.rows() == [survivor(rev=2)]
    assert (topic.fold.events, topic.fold.duplicates) == (4, 2)


def test_an_event_without_a_key_brings_no_row(topic: Topic) -> None:
    """Debezium's, of a table that was dropped before it decoded the change."""
    record = {"after": FULL, "op": "c", "source": {"txId": 7, "lsn": 10}}
    topic.fold.take("documents", None, avro(2, ENVELOPE, record), "here")
    assert (topic.rows(), topic.fold.keyless) == ([], 1)


def test_a_truncate_is_refused(topic: Topic) -> None:
    with pytest.raises(SinkError, match="operation 't'; expected one of c, u, r, d"):
        topic.event("t", 10)


def test_a_record_in_another_format_is_refused(topic: Topic) -> None:
    with pytest.raises(SinkError, match=r"here: b'\{\"id\": 1.*is not Avro"):
        topic.fold.take("documents", b'{"id": 1}', None, "here")


def test_a_record_cut_short_is_refused(topic: Topic) -> None:
    with pytest.raises(SinkError, match="here: does not fit schema 1"):
        topic.fold.take("documents", topic.key[:5], None, "here")


def test_a_schema_that_the_registry_does_not_give_is_told(topic: Topic) -> None:
    with pytest.raises(SinkError, match=r"no schema 3 from http://127\.0\.0\.1:9/unused"):
        topic.fold.take("documents", avro(3, KEY, {"id": 1}), None, "here")
