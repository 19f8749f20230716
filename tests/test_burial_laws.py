"""Laws of the comparison that decides which keys of a topic are buried: no server is needed."""

import io
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cdc.compare import Compared, compare
from pipeline.cdc.forms import Column
from pipeline.cdc.keys import Key, KeyedTable, KeyReader, Layout
from pipeline.cdc.topics import LiveKeys
from pipeline.cdc.wire import Decoder, Undecodable
from pipeline.registry.client import SchemaMissing

TABLE = KeyedTable("public", "accounts", (Column("id", "numeric", "N", 20, 0),), ("id",))
TOPIC = "shop.public.accounts"
DECIMAL = {
    "type": "bytes",
    "connect.name": "org.apache.kafka.connect.data.Decimal",
    "connect.parameters": {"scale": "0"},
    "logicalType": "decimal",
    "precision": 20,
    "scale": 0,
}
FIELDS: dict[int, Any] = {
    1: DECIMAL,
    2: "string",
    3: "double",
    4: "boolean",
    5: {"type": "bytes", "connect.name": "com.example.Sealed"},
}


def avro(schema: int, value: object) -> bytes:
    """Write a key as Connect's Avro converter does."""
    written, kind = io.BytesIO(), FIELDS[schema]
    if isinstance(kind, dict):  # fastavro would want a Decimal for it
        kind = {name: told for name, told in kind.items() if name != "logicalType"}
    record = {"type": "record", "name": "Key", "fields": [{"name": "id", "type": kind}]}
    fastavro.schemaless_writer(written, record, {"id": value})
    return b"\0" + schema.to_bytes(4, "big") + written.getvalue()


def registered(number: int) -> str:
    """Answer as the registry does."""
    fields = [{"name": "id", "type": FIELDS[number]}]
    namespace = "shop.public.accounts"
    return json.dumps({"type": "record", "name": "Key", "namespace": namespace, "fields": fields})


def signed(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)


def with_schema(number: int) -> bytes:
    field = {"field": "id", "type": "string", "optional": False}
    schema = {"type": "struct", "fields": [field], "name": f"{TOPIC}.Key"}
    return json.dumps({"schema": schema, "payload": {"id": str(number)}}).encode()


EXACT: dict[str, Callable[[int], bytes]] = {
    "precise, Avro": lambda n: avro(1, signed(n)),
    "string, Avro": lambda n: avro(2, str(n)),
    "string, trailing zeros": lambda n: avro(2, f"{n}.00"),
    "string, JSON": with_schema,
    "number, JSON without a schema": lambda n: json.dumps({"id": n}).encode(),
}
UNKNOWN: dict[str, Callable[[int], bytes]] = {
    "a double of twenty digits": lambda n: avro(3, float(n)),
    "another type": lambda n: avro(4, n % 2 == 0),
    "a type that nobody knows": lambda n: avro(5, signed(n)),
    "a schema that the registry lost": lambda n: b"\0\0\0\0\x63" + signed(n),
    "Protobuf": lambda n: b"\0\0\0\0\x01\0\x08" + signed(n),
    "text of a struct": lambda n: f"Struct{{id={n}}}".encode(),
    "sealed": lambda n: bytes([200]) + signed(n),
    "base64 of a decimal, by other settings": lambda n: json.dumps({"id": f"{n:040x}"}).encode(),
    "another field": lambda n: json.dumps({"identity": n}).encode(),
}
NUMBERS = st.integers(-(10**20) + 1, 10**20 - 1) | st.integers(-3, 3)


def compared(rows: Collection[int], raws: Sequence[bytes]) -> Compared:
    """Compare a table of these keys with a topic of those."""

    def keys(layouts: Sequence[Layout]) -> Iterator[list[list[Key]]]:
        for row in rows:
            known = [[tuple(form.table(str(row)) for _, form in one.parts)] for one in layouts]
            yield known or [[(str(row),)]]

    def registry(number: int) -> str:
        if number not in FIELDS:
            raise SchemaMissing(f"no schema {number}", 404)
        return registered(number)

    read = KeyReader(Decoder(registry), TABLE, TOPIC, dict)
    folded = LiveKeys(TOPIC, {0: {raw: at for at, raw in enumerate(raws)}}, len(raws))
    return compare(read, keys, folded, {})


def buried(found: Compared) -> set[bytes]:
    """What would be written: nothing where there is trouble."""
    return set() if found.trouble else {raw for _, raw in found.ghosts}


@given(st.sets(NUMBERS), st.dictionaries(NUMBERS, st.sets(st.sampled_from(sorted(EXACT)))))
def test_what_is_buried_is_in_the_topic_and_not_in_the_table(
    rows: set[int], events: dict[int, set[str]]
) -> None:
    """Whatever modes wrote the topic, one after the other; else nothing is buried, and told."""
    raws = {EXACT[mode](number): number for number, modes in events.items() for mode in modes}
    found = compared(rows, list(raws))
    known = {number for number in raws.values() if number in rows}
    ghosts = {raw for raw, number in raws.items() if number not in rows}
    assert not found.strangers
    assert set(found.missing) == {(Decimal(row),) for row in rows - known} or not raws
    if ghosts and 2 * len(known) < len(rows):
        assert "are recognised" in (found.trouble or "")
    else:
        assert found.trouble is None
        assert buried(found) == ghosts


@pytest.mark.parametrize("mode", UNKNOWN)
@given(rows=st.sets(NUMBERS, min_size=1), events=st.sets(NUMBERS))
def test_nothing_is_buried_that_could_not_be_read(
    mode: str, rows: set[int], events: set[int]
) -> None:
    """Under an encoding that is unknown or tells less than the table, whatever the rows are."""
    found = compared(rows, [UNKNOWN[mode](number) for number in events])
    assert not buried(found)
    if events and not rows & events:
        assert found.trouble


@given(st.sets(NUMBERS, min_size=2), st.binary(min_size=1), st.sampled_from(sorted(EXACT)))
def test_a_stranger_is_named_and_gone_on_without(rows: set[int], raw: bytes, mode: str) -> None:
    """It is no ghost and no row; the others are compared as if it were not there."""
    keep = {EXACT[mode](row) for row in rows}
    found = compared(rows, [*keep, b"\xff" + raw])
    assert [(one.partition, one.offset) for one in found.strangers] == [(0, len(keep))]
    assert (found.trouble, buried(found), found.missing) == (None, set(), [])


def test_the_error_names_both_sides() -> None:
    found = compared({1, 2}, [avro(2, "seven")])
    assert "0 of 2 rows" in str(found.trouble)
    assert "seven" in str(found.trouble)
    assert "table key 1" in str(found.trouble)


def test_a_key_of_another_table_is_a_stranger() -> None:
    other = with_schema(7).replace(b"accounts", b"orders")
    found = compared({1}, [with_schema(1), other])
    assert "not one of public.accounts" in str(found.strangers)
    assert not buried(found)


def test_a_registry_that_lost_its_schemas_is_asked_once_for_each() -> None:
    """There may be millions of records, and each would wait for its answer."""
    asked = []

    def empty(number: int) -> str:
        asked.append(number)
        raise SchemaMissing("no schema", 404)

    decoder = Decoder(empty)
    for _ in range(3):
        with pytest.raises(Undecodable, match="no schema 7"):
            decoder.is_event(b"\0\0\0\0\x07?")
    assert asked == [7]
