"""Our own reading of Confluent's `_schemas`, by records that are written here in its format."""

import json
from typing import Any

import pytest

from checks.schemas_topic import Entry, Fold, fold

ORDER = '{"type":"record","name":"Order","fields":[]}'
SALE = '{"type":"record","name":"Sale","fields":[]}'
Record = tuple[dict[str, Any] | bytes, dict[str, Any] | bytes | None]


def schema(version: int, number: int, text: str = ORDER, **more: Any) -> Record:  # noqa: ANN401 - JSON
    key = {"keytype": "SCHEMA", "subject": "orders", "version": version, "magic": 1}
    named = {"subject": "orders", "version": version, "id": number, "schema": text}
    return key, {**named, "deleted": False, **more}


def gone(version: int) -> Record:
    return schema(version, 1)[0], None


def deleted(upto: int) -> Record:
    key = {"keytype": "DELETE_SUBJECT", "subject": "orders", "magic": 0}
    return key, {"subject": "orders", "version": upto}


def setting(kind: str, name: str | None, **value: str) -> Record:
    return {"keytype": kind, "subject": name, "magic": 0}, value or None


def read(*records: Record) -> Fold:
    def raw(part: dict[str, Any] | bytes | None) -> bytes | None:
        return json.dumps(part, separators=(",", ":")).encode() if isinstance(part, dict) else part

    return fold(Entry(at, raw(key), raw(value)) for at, (key, value) in enumerate(records))


def test_the_last_word_on_a_key_counts() -> None:
    found = read(
        ({"keytype": "NOOP", "magic": 0}, None),
        schema(1, 1),
        schema(2, 2, SALE, references=[{"name": "O", "subject": "orders", "version": 1}]),
        schema(1, 1, deleted=True),
        setting("CONFIG", None, compatibilityLevel="BACKWARD"),
        setting("CONFIG", "orders", compatibilityLevel="FULL"),
        setting("CONFIG", "orders"),
        setting("MODE", "orders", mode="READONLY"),
    )
    one, two = found.schemas["orders", 1], found.schemas["orders", 2]
    assert (one.id, one.deleted, two.id, two.deleted) == (1, True, 2, False)
    assert two.references[0]["subject"] == "orders"
    assert (found.levels, found.modes) == ({"": "BACKWARD"}, {"orders": "READONLY"})
    assert (found.highest, found.problems, found.rising()) == (2, [], [])


def test_a_deleted_subject_keeps_what_is_registered_after_it() -> None:
    found = read(schema(1, 1), schema(2, 2, SALE), deleted(2), schema(3, 3))
    assert [one.deleted for one in found.schemas.values()] == [True, True, False]
    again = read(deleted(1), schema(1, 1))
    assert [one.deleted for one in again.schemas.values()] == [False], "order is everything"


def test_a_version_deleted_for_good_leaves_its_id_taken() -> None:
    found = read(schema(1, 7), gone(1))
    assert (found.schemas, found.highest, found.rising()) == ({}, 7, [])


def test_a_key_in_other_bytes_lets_a_version_rise_again() -> None:
    _, value = schema(1, 1)
    legacy = b'{"magic":1,"keytype":"SCHEMA","subject":"orders","version":1}'
    found = read((legacy, value), schema(1, 1), gone(1))
    assert (found.schemas, found.rising()) == ({}, [("orders", 1)])


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ((schema(1, 1)[0], b""), "neither key nor value"),
        ((b"\0\0\0\0\1", {}), "neither key nor value"),
        (({"keytype": "CLEAR_SUBJECT", "subject": "orders"}, {}), "CLEAR_SUBJECT is not known"),
        ((schema(1, 1)[0], schema(2, 1)[1]), "its key says"),
    ],
)
def test_what_no_registry_could_read_is_told_by_its_offset(record: Record, says: str) -> None:
    ((offset, told),) = read(schema(3, 3), record).problems
    assert offset == 1
    assert says in told


def test_one_id_of_two_schemas_is_told() -> None:
    assert read(schema(1, 1), schema(2, 1)).collisions() == []
    (told,) = read(schema(1, 1), schema(2, 1, SALE)).collisions()
    assert told == "id 1 is orders version 1 and orders version 2"
