"""Laws of record batches: what is packed is walked, and no damage goes unseen."""

import struct
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import BackupError
from pipeline.kafka.log.batches import (
    HEADER,
    Batch,
    Codec,
    Marker,
    OldFormat,
    check_crc,
    marker,
    packed,
    walk,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
WHERE = "here"


@st.composite
def batches(draw: st.DrawFn, base: int | None = None) -> bytes:
    delta = draw(st.integers(0, 1000))
    header = Batch(
        base_offset=draw(st.integers(0, 2**60)) if base is None else base,
        length=0,
        leader_epoch=draw(st.integers(-1, 2**31 - 1)),
        magic=2,
        crc=0,
        attributes=draw(st.integers(0, 0x7F).filter(lambda a: a & 7 <= 4)),
        last_offset_delta=delta,
        base_timestamp=draw(INT64),
        max_timestamp=draw(INT64),
        producer_id=draw(INT64),
        producer_epoch=draw(st.integers(-1, 2**15 - 1)),
        base_sequence=draw(st.integers(-1, 2**31 - 1)),
        records=draw(st.integers(0, delta + 1)),
    )
    return packed(header, draw(st.binary(max_size=200)))


def control(ended: int, base: int = 0, producer: int = 7) -> bytes:
    """Build a control batch as brokers write it: one record with key (version 0, type)."""
    key = b"\x00\x00" + ended.to_bytes(2, "big")
    body = b"\x00\x00\x00\x08" + key + b"\x0c" + bytes(6) + b"\x00"
    record = bytes([len(body) * 2]) + body
    return packed(Batch(base, 0, 0, 2, 0, 0x30, 0, 0, 0, producer, 0, -1, 1), record)


def checked(data: bytes) -> list[tuple[Batch, memoryview]]:
    found = list(walk(data, WHERE))
    for batch, view in found:
        check_crc(batch, view, WHERE)
    return found


@given(st.lists(batches(), max_size=5))
def test_what_is_packed_is_walked(several: list[bytes]) -> None:
    found = checked(b"".join(several))
    assert [bytes(data) for _, data in found] == several
    for batch, data in found:
        assert packed(batch, bytes(data[HEADER.size :])) == bytes(data)
        assert batch.next_offset == batch.base_offset + batch.last_offset_delta + 1


@given(batches(), st.data())
def test_every_flipped_bit_after_the_leader_epoch_is_detected(
    whole: bytes, data: st.DataObject
) -> None:
    bit = data.draw(st.integers(16 * 8, len(whole) * 8 - 1))
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BackupError):
        checked(bytes(damaged))


@given(batches(), batches(), st.data())
def test_a_cut_batch_is_found_or_left_out(first: bytes, last: bytes, data: st.DataObject) -> None:
    kept = first + last[: data.draw(st.integers(1, len(last) - 1))]
    assert [bytes(view) for _, view in walk(kept, WHERE, cut=True)] == [first]
    with pytest.raises(BackupError, match=f"byte {len(first)}: the batch is cut"):
        list(walk(kept, WHERE))


@pytest.mark.parametrize("ended", list(Marker))
def test_a_control_batch_tells_how_the_transaction_ended(ended: Marker) -> None:
    ((batch, view),) = walk(control(ended), WHERE)
    assert batch.control
    assert batch.transactional
    assert marker(batch, view, WHERE) is ended


@pytest.mark.parametrize(
    "record", [b"", b"\xff\xff", bytes(5), b"\x20" + bytes(3) + b"\x08\0\0\0\x09"]
)
def test_nonsense_in_a_control_batch_is_one_error(record: bytes) -> None:
    data = packed(Batch(9, 0, 0, 2, 0, 0x30, 0, 0, 0, 7, 0, -1, 1), record)
    ((batch, view),) = walk(data, WHERE)
    with pytest.raises(BackupError, match="offset 9: not a transaction marker"):
        marker(batch, view, WHERE)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"magic": 1}, "batch format 1, expected 2"),
        ({"records": 5}, "5 records in offsets 3 to 3 cannot be"),
        ({"attributes": 5}, "codec 5 is unknown"),
        ({"base_offset": -1}, "cannot be"),
    ],
)
def test_what_cannot_be_a_batch_is_refused(changes: dict[str, int], told: str) -> None:
    batch = Batch(3, 0, 0, 2, 0, 0, 0, 0, 0, -1, -1, -1, 1)
    with pytest.raises(BackupError, match=told):
        list(walk(packed(batch._replace(**changes), b"x"), WHERE))


def test_a_length_below_the_header_is_refused() -> None:
    with pytest.raises(BackupError, match="batch length 0 is below 49"):
        list(walk(bytes(100), WHERE))


def test_attributes_are_told_apart() -> None:
    batch = Batch(0, 0, 0, 2, 0, 0, 9, 0, 0, -1, -1, -1, 4)
    assert batch._replace(attributes=0x04).codec is Codec.ZSTD
    assert batch._replace(attributes=0x08).append_time
    assert batch._replace(attributes=0x10).transactional
    assert batch._replace(attributes=0x20).control
    assert batch._replace(attributes=0x40).delete_horizon
    assert batch.missing == 6


@pytest.mark.parametrize("magic", [0, 1])
def test_messages_of_before_batches_are_named_for_what_they_are(magic: int) -> None:
    """An old message is shorter than the header of a batch, and sound all the same."""
    time = struct.pack(">q", 1) if magic else b""
    body = struct.pack(">bb", magic, 0) + time + struct.pack(">ii", -1, 1) + b"x"
    message = struct.pack(">I", crc32(body)) + body
    data = struct.pack(">qi", 7, len(message)) + message
    told = rf"orders\[0\], byte 0: .* format {magic}.* archive again"
    with pytest.raises(OldFormat, match=told):
        list(walk(data * 5, "orders[0]", cut=True))
