"""Laws of records: what is put into a batch comes out of it, whatever the codec."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import BackupError
from pipeline.kafka.log.batches import Batch, Codec, check_crc, packed, walk
from pipeline.kafka.log.codecs import compress, decompress
from pipeline.kafka.log.records import Record, encoded, runs, unpacked

TIMES = st.integers(-1, 2**42)


@st.composite
def dense(draw: st.DrawFn) -> list[Record]:
    first = draw(st.integers(0, 2**40))
    found = draw(st.lists(st.tuples(TIMES, st.binary(max_size=300)), min_size=1, max_size=30))
    return [Record(first + n, time, body) for n, (time, body) in enumerate(found)]


@given(dense(), st.sampled_from(Codec))
def test_what_is_encoded_is_unpacked(records: list[Record], codec: Codec) -> None:
    ((batch, view),) = walk(encoded(records, codec), "here")
    check_crc(batch, view, "here")
    assert unpacked(batch, view, "here") == records
    assert batch.codec is codec
    assert batch.max_timestamp == max(record.timestamp for record in records)


@given(st.binary(max_size=200_000), st.sampled_from(Codec))
def test_every_codec_gives_back_what_it_took(data: bytes, codec: Codec) -> None:
    assert decompress(codec, compress(codec, data)) == data


@pytest.mark.parametrize("size", [70_000, 64 << 10, 200_000])
@pytest.mark.parametrize("codec", list(Codec))
def test_several_blocks_are_one_content(codec: Codec, size: int) -> None:
    data = bytes(range(256)) * (size // 256)
    assert decompress(codec, compress(codec, data)) == data


@given(st.lists(st.integers(0, 60), unique=True).map(sorted))
def test_runs_hold_every_record_and_no_hole(offsets: list[int]) -> None:
    parts = runs([Record(offset, 0, b"") for offset in offsets])
    assert [each.offset for part in parts for each in part] == offsets
    for part in parts:
        assert [r.offset for r in part] == list(range(part[0].offset, part[-1].offset + 1))
    for part, following in pairwise(parts):
        assert part[-1].offset + 1 < following[0].offset


@pytest.mark.parametrize("codec", list(Codec))
def test_records_that_cannot_be_are_one_error(codec: Codec) -> None:
    header = Batch(9, 0, 0, 2, 0, codec, 1, 0, 0, -1, -1, -1, 2)
    for body in (b"\x03nonsense", b"\xff" * 20, compress(codec, b"\x02\x00"), b""):
        ((batch, view),) = walk(packed(header, body), "here")
        with pytest.raises(BackupError, match="here, offset 9: its records"):
            unpacked(batch, view, "here")
