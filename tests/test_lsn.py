"""Laws of WAL positions and segment names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.postgres.wal.lsn import (
    Lsn,
    parse_segment,
    record_end,
    segment_name,
    segment_start,
    segments_between,
)

positions = st.integers(0, (1 << 64) - 1).map(Lsn)
sizes = st.sampled_from([1 << 20, 16 << 20, 1 << 30])
timelines = st.integers(1, 0xFFFFFFFF)


@given(positions)
def test_an_lsn_reads_back_what_it_writes(lsn: Lsn) -> None:
    assert Lsn.parse(str(lsn)) == lsn
    assert f"{lsn}" == str(lsn)


def test_an_lsn_is_written_as_postgresql_writes_it_and_read_as_pg_waldump_does() -> None:
    assert str(Lsn.parse("0/03000028")) == "0/3000028"
    assert str(Lsn(0x3000000) + 0x28) == "0/3000028"
    assert Lsn.parse("1/0") > Lsn.parse("0/FFFFFFFF")


@pytest.mark.parametrize("text", ["", "0", "0/", "0/G", "0/123456789", "0/1 ", "-1/0"])
def test_what_is_not_an_lsn_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an LSN"):
        Lsn.parse(text)


@given(timelines, st.integers(0, (1 << 63) - 1).map(Lsn), sizes)
def test_a_segment_name_tells_where_the_segment_starts(timeline: int, lsn: Lsn, size: int) -> None:
    segment = parse_segment(segment_name(timeline, lsn, size), size)
    assert segment == (timeline, segment_start(lsn, size))
    assert segment.start <= lsn < segment.start + size


def test_segment_names_are_those_of_postgresql() -> None:
    assert segment_name(1, Lsn.parse("0/3000028")) == "000000010000000000000003"
    assert segment_name(2, Lsn.parse("1/FF000000")) == "0000000200000001000000FF"
    assert segment_name(1, Lsn.parse("1/0"), 1 << 20) == "000000010000000100000000"


@pytest.mark.parametrize(
    "name", ["000000010000000000000100", "00000001.history", "000000010000000000000003.partial"]
)
def test_what_cannot_name_a_segment_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="does not name a WAL segment"):
        parse_segment(name)


def test_segments_between_hold_the_first_and_the_last_byte() -> None:
    start, end = Lsn.parse("0/FEFFFFFF"), Lsn.parse("1/0")
    assert list(segments_between(1, start, end)) == [
        "0000000100000000000000FE",
        "0000000100000000000000FF",
    ]
    assert [*segments_between(1, start, end + 1)][-1] == "000000010000000100000000"
    assert not [*segments_between(1, end, end)]


@given(st.integers(0, 1 << 40).map(lambda n: Lsn(n * 8)), st.integers(24, 1 << 20))
def test_a_record_ends_aligned_and_behind_its_bytes(start: Lsn, length: int) -> None:
    end = record_end(start, length)
    assert end % 8 == 0
    assert start + length <= end


def test_a_record_skips_the_headers_of_the_pages_it_enters() -> None:
    assert record_end(Lsn(0x2000028), 49) == 0x2000028 + 56
    assert record_end(Lsn(0x2001FF0), 32) == 0x2002000 + 24 + 16  # into the next page
    assert record_end(Lsn(0x2FFFFF0), 32) == 0x3000000 + 40 + 16  # into the next segment
    assert record_end(Lsn(0x2001FF0), 16) == 0x2002000  # no header: nothing enters the page
