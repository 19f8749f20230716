"""What is not of the protocol, or only a part of a message, is refused and never passed over."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RestoreError
from pipeline.postgres.redecode.pgoutput import Change, Decoder, Message, Truncation, Unchanged
from pipeline.postgres.redecode.telling import Count, as_facts, heading, line
from pipeline.postgres.wal.lsn import Lsn


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def column(name: str, flags: int = 0) -> bytes:
    return struct.pack("!B", flags) + text(name) + struct.pack("!Ii", 25, -1)


def row(*values: bytes | None) -> bytes:
    told = (b"n" if v is None else b"t" + struct.pack("!I", len(v)) + v for v in values)
    return struct.pack("!H", len(values)) + b"".join(told)


BEGIN = b"B" + struct.pack("!QqI", 0x3000028, 1_000_000, 981)
COMMIT = b"C" + struct.pack("!BQQq", 0, 0x3000028, 0x3000058, 1_000_000)
GOODS = b"R" + struct.pack("!I", 7) + text("public") + text("goods") + b"d"
GOODS += struct.pack("!H", 2) + column("id", 1) + column("body")
INSERT = b"I" + struct.pack("!I", 7) + b"N" + row(b"1", "ü".encode())
UPDATE = b"U" + struct.pack("!I", 7) + b"K" + row(b"1", None)
UPDATE += b"N" + struct.pack("!H", 2) + b"t" + struct.pack("!I", 1) + b"2" + b"u"
DELETE = b"D" + struct.pack("!I", 7) + b"K" + row(b"2", None)
EMPTY = b"T" + struct.pack("!IBI", 1, 3, 7)
MESSAGE = b"M" + struct.pack("!BQ", 1, 0x3000000) + text("life") + struct.pack("!I", 2) + b"\0\xff"
AT = Lsn(0x3000000)
ALL = (BEGIN, GOODS, INSERT, UPDATE, DELETE, EMPTY, MESSAGE, COMMIT)


def decoder(*messages: bytes) -> Decoder:
    made = Decoder()
    for message in messages:
        made.decode(message, AT)
    return made


def test_a_change_has_its_rows_its_key_and_its_transaction() -> None:
    made = decoder(BEGIN, GOODS)
    inserted, updated, deleted = (made.decode(each, AT) for each in (INSERT, UPDATE, DELETE))
    assert isinstance(inserted, Change)
    assert isinstance(updated, Change)
    assert isinstance(deleted, Change)
    assert (inserted.transaction.xid, str(inserted.transaction.lsn)) == (981, "0/3000028")
    assert (inserted.old, inserted.new) == (None, {"id": "1", "body": "ü"})
    assert updated.old == {"id": "1"}
    assert updated.new == {"id": "2", "body": Unchanged.TOAST}
    assert (updated.key, deleted.key) == ({"id": "2"}, {"id": "2"})
    assert deleted.new is None


def test_tables_that_are_emptied_say_what_went_with_them() -> None:
    emptied = decoder(BEGIN, GOODS).decode(EMPTY, AT)
    assert isinstance(emptied, Truncation)
    assert [str(each) for each in emptied.relations] == ["public.goods"]
    assert (emptied.cascade, emptied.restart_identity) == (True, True)


def test_people_read_what_a_transaction_did_line_by_line() -> None:
    made, count = decoder(BEGIN, GOODS), Count()
    events = [made.decode(each, AT) for each in (INSERT, UPDATE, DELETE, EMPTY, MESSAGE)]
    told = [as_facts(one) for one in events if isinstance(one, Change | Truncation | Message)]
    assert [count.take(facts) for facts in told] == [True, False, False, False, False]
    assert heading(told[0]) == "2000-01-01T00:00:01+00:00  0/3000028  xid 981"
    assert [line(facts) for facts in told] == [
        "  insert public.goods id='1': body='ü'",
        "  update public.goods id='2': id='1' -> id='2'",
        "  delete public.goods id='2'",
        "  truncate public.goods",
        "  message life: '\\x00\\\\xff'",
    ]
    assert list(count.lines()) == [
        "4 changes of transaction 981",
        *(f"          1 {each} of public.goods" for each in ("delete", "insert", "truncate")),
        "          1 update of public.goods",
    ]
    assert told[1]["unchanged"] == ["body"]


@given(st.sampled_from(ALL), st.data())
def test_a_part_of_a_message_is_never_taken_for_one(message: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(message) - 1))
    before = () if message is BEGIN else (BEGIN, GOODS)
    with pytest.raises(RestoreError, match="pgoutput"):
        decoder(*before).decode(message[:cut], AT)
    with pytest.raises(RestoreError, match="pgoutput"):
        decoder(*before).decode(message + b"\0", AT)


@pytest.mark.parametrize("message", [INSERT, UPDATE, DELETE, EMPTY, COMMIT, MESSAGE])
def test_a_change_outside_of_a_transaction_or_of_an_unknown_table_is_refused(
    message: bytes,
) -> None:
    with pytest.raises(RestoreError, match=r"outside of a transaction|cannot be read"):
        decoder(GOODS).decode(message, AT)
    with pytest.raises(RestoreError, match="was not ended"):
        decoder(BEGIN, GOODS).decode(BEGIN, AT)
