"""Which schema ids of records are a reason to keep clients out, and which records are not."""

import json
from collections.abc import Iterator
from io import BytesIO
from typing import NamedTuple

import fastavro
import pytest

from pipeline.cdc import schema_ids
from pipeline.config import PipelineConfig
from pipeline.registry.client import RegistryClient, SchemaMissing


def schema(name: str, *fields: str) -> str:
    space, _, last = name.rpartition(".")
    parts = [{"name": field, "type": "long"} for field in fields]
    return json.dumps({"type": "record", "namespace": space, "name": last, "fields": parts})


SCHEMAS = {
    1: schema("shop.public.orders.Key", "id"),
    2: schema("shop.public.orders.Envelope", "id", "op"),
    3: schema("shop.public.orders.Value", "id", "op"),
    4: schema("shop.public.clients.Envelope", "id", "op"),
    5: schema("shop.public.orders.Envelope", "a", "b", "c"),
}


class Answering(RegistryClient):
    """Answers the ids of SCHEMAS."""

    def __init__(self) -> None: ...

    def schema_by_id(self, schema_id: int) -> str:
        if schema_id not in SCHEMAS:
            raise SchemaMissing("no such id", 40403)
        return SCHEMAS[schema_id]

    def type_by_id(self, schema_id: int) -> str:
        return "AVRO" if schema_id in SCHEMAS else ""


class Sent(NamedTuple):
    """A record as librdkafka gives it."""

    at: int
    raw_key: bytes | None
    raw_value: bytes | None

    def key(self) -> bytes | None:
        return self.raw_key

    def value(self) -> bytes | None:
        return self.raw_value

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_000 + self.at


def framed(number: int, *, of: int | None = None) -> bytes:
    """A value of the schema `of`, under the id `number`."""
    stream = BytesIO()
    parsed = json.loads(SCHEMAS[of or number])
    fastavro.schemaless_writer(stream, parsed, {f["name"]: 70_000 for f in parsed["fields"]})
    return b"\0" + number.to_bytes(4, "big") + stream.getvalue()


def told(monkeypatch: pytest.MonkeyPatch, *values: bytes | None) -> list[str]:
    def sampled(*_: object) -> Iterator[Sent]:
        return (Sent(at, framed(1), value) for at, value in enumerate(values))

    monkeypatch.setattr(schema_ids, "sampled", sampled)
    return schema_ids.problems(PipelineConfig.model_construct(), Answering(), ["t"])


def test_what_the_registry_still_means_is_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transform that was added or removed, JSON, tombstones, what is no event at all."""
    sound = (framed(3), framed(2), None, b'{"id": 1}', b"no event", b"\0\0", b"", framed(2))
    assert told(monkeypatch, *sound) == []


def test_an_id_that_is_unknown_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    (unknown,) = told(monkeypatch, framed(9, of=2), framed(9, of=2), framed(2))
    assert unknown == (
        "t[0]@0: schema id 9 is unknown to the registry, and a value has it "
        "(2 of the records that were looked at)"
    )


def test_an_id_of_another_schema_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    (shape,) = told(monkeypatch, framed(5, of=2), framed(2))
    assert shape.startswith("t[0]@0: schema id 5 is of another schema: cannot decode the value")
    (name,) = told(monkeypatch, framed(4, of=2), framed(2))
    assert name == (
        "t[0]@0: schema id 4 is of another schema: it is called 'shop.public.clients', "
        "that of the newest value 'shop.public.orders'"
    )
