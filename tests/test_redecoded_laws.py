"""Whatever part of a stretch was delivered, and however often: the rest is named, and only that."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cdc.redecoded import Owed
from pipeline.cdc.wire import Decoder
from pipeline.errors import ServerError
from pipeline.postgres.wal.lsn import Lsn

OPS = {"insert": "c", "update": "u", "delete": "d"}


@dataclass(frozen=True)
class Record:
    """A record of a topic as a driver gives it."""

    of_key: bytes | None
    of_value: bytes

    def key(self) -> bytes | None:
        return self.of_key

    def value(self) -> bytes:
        return self.of_value

    def topic(self) -> str:
        return "shop.public.goods"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 7


def change(at: int, row: int, op: str, *, moved: bool = False) -> dict[str, Any]:
    old = {"id": str(-row)} if moved else None
    told = {"op": op, "table": "public.goods", "xid": 981, "at": str(Lsn(at))}
    return {**told, "key": {"id": str(row)}, "old": old, "new": {"id": str(row)}}


def event(at: int, row: int, op: str) -> Record:
    source = {"schema": "public", "table": "goods", "lsn": at, "txId": 981}
    key = json.dumps({"id": row}).encode()
    return Record(key, json.dumps({"op": op, "source": source}).encode())


def no_registry(number: int) -> str:
    raise AssertionError(number)


def missing(changes: Iterable[dict[str, Any]], records: Iterable[Record]) -> list[dict[str, Any]]:
    decoder = Decoder(no_registry)
    with Owed() as owed:
        for one in changes:
            owed.hold(one)
        for record in records:
            owed._saw(record, decoder)
        return list(owed.missing())


CHANGES = st.lists(
    st.tuples(st.integers(1, 50), st.sampled_from(sorted(OPS))),
    max_size=30,
    unique_by=lambda c: c[0],
)


@given(CHANGES, st.data())
def test_what_was_not_delivered_is_named_and_only_that(
    told: list[tuple[int, str]], data: st.DataObject
) -> None:
    delivered = data.draw(st.sets(st.sampled_from(told))) if told else set()
    repeated = data.draw(st.lists(st.sampled_from(sorted(delivered)))) if delivered else []
    events = [event(at, at, OPS[op]) for at, op in [*delivered, *repeated]]
    changes = [change(at, at, op) for at, op in told]
    assert missing(changes, events) == [
        one for one, place in zip(changes, told, strict=True) if place not in delivered
    ]


@given(st.integers(1, 9), st.data())
def test_rows_of_one_copy_are_counted_by_their_keys(rows: int, data: st.DataObject) -> None:
    """They share position and transaction; one that came twice stands for itself alone."""
    delivered = data.draw(st.lists(st.integers(1, rows), max_size=20))
    changes = [change(100, row, "insert") for row in range(1, rows + 1)]
    left = missing(changes, [event(100, row, "c") for row in delivered])
    assert len(left) == rows - len(set(delivered))


def test_a_row_whose_key_changed_is_a_delete_and_a_create() -> None:
    moved = change(100, 2, "update", moved=True)
    assert missing([moved], [event(100, -2, "d")]) == [moved]
    assert missing([moved], [event(100, -2, "d"), event(100, 2, "c")]) == []
    assert missing([moved], [event(100, 2, "u")]) == []


def test_an_event_of_another_place_is_none_of_it() -> None:
    wanted = change(100, 1, "insert")
    assert missing([wanted], [event(101, 1, "c"), event(100, 1, "r")]) == [wanted]


@pytest.mark.parametrize("value", [b'{"id": 1}', b"\xff", b'{"op": "c", "source": null}'])
def test_a_record_of_which_nobody_knows_the_change_is_no_absence(value: bytes) -> None:
    with pytest.raises(ServerError, match=r"shop.public.goods\[0\]@7: UNKNOWN of which change"):
        missing([change(100, 1, "insert")], [Record(b"1", value)])
