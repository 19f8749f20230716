"""Which bytes are a schema's id, and of which topics that can be told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cdc.framed import Seen, carried, number_of, reframed, unresolved
from pipeline.registry.schemas import Inventory, RegisteredSchema

KNOWN = RegisteredSchema("a-value", 1, 7, '"long"', "AVRO")
SHOP = Inventory("READWRITE", "NONE", {}, (KNOWN,), highest=7)


def seen(*raw: bytes | None) -> Seen:
    found = Seen()
    for at, one in enumerate(raw):
        found.add(one, f"t[0]@{at}")
    return found


def framed(number: int, body: bytes = b"body", size: int = 4) -> bytes:
    return b"\0" + number.to_bytes(size, "big") + body


@given(st.integers(1, 2**31 - 1), st.binary(max_size=20))
def test_an_id_is_read_in_four_bytes_and_in_eight(number: int, body: bytes) -> None:
    assert number_of(framed(number, body)) == number
    long = framed(number, body or b"b", size=8)
    assert number_of(long) == number
    assert reframed(long, number) == framed(number, body or b"b")
    assert reframed(framed(number, body), number) == framed(number, body)


@pytest.mark.parametrize("raw", [b"", b"{}", b"\0\0\0\7", b"\1\0\0\0\7body"])
def test_other_bytes_have_no_id(raw: bytes) -> None:
    assert number_of(raw) is None


@pytest.mark.parametrize(
    ("values", "carries"),
    [
        ([framed(7), None, framed(8)], True),
        ([framed(7), b"{}"], False),
        ([(1_700_000_000_000 + n).to_bytes(8, "big") for n in range(3)], False),
        ([None], False),
        ([], False),
    ],
)
def test_what_only_looks_framed_is_told_apart(values: list[bytes | None], carries: bool) -> None:  # noqa: FBT001 - a case
    assert seen(*values).carries_ids() is carries


def test_a_topic_with_a_subject_carries_ids_beside_other_records() -> None:
    topics = {
        "a": {"key": seen(b"{}"), "value": seen(framed(7), b"{}", framed(9), framed(9))},
        "numbers": {"key": seen((1).to_bytes(8, "big")), "value": seen(b"\0\0\0\0\1 and {}", b"{")},
    }
    assert [(topic, part) for topic, part, _ in carried(topics, SHOP)] == [("a", "value")]
    assert unresolved(topics, SHOP) == {"a value 9": "2 times, first at t[0]@2"}
