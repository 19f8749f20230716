"""Timeline histories: read, refused, and asked whose byte it is."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RestoreError
from pipeline.postgres.wal.lsn import Lsn
from pipeline.postgres.wal.timelines import (
    Span,
    branches_of,
    history_name,
    lineage,
    parse_history,
    timeline_at,
)

THIRD = """\
1\t0/3000000\tno recovery target specified

# a comment
2\t0/50000A0\tbefore transaction 4711
"""


def test_a_history_file_tells_the_lineage() -> None:
    assert parse_history(THIRD, 3) == [
        Span(1, Lsn(0), Lsn.parse("0/3000000")),
        Span(2, Lsn.parse("0/3000000"), Lsn.parse("0/50000A0")),
        Span(3, Lsn.parse("0/50000A0"), None),
    ]


switches = st.lists(st.integers(1, 1 << 60), unique=True, max_size=6).map(sorted)


@given(switches, st.integers(0, 1 << 61).map(Lsn))
def test_every_byte_belongs_to_exactly_one_timeline(ends: list[int], lsn: Lsn) -> None:
    text = "".join(f"{n}\t{Lsn(end)}\treason\n" for n, end in enumerate(ends, 1))
    spans = parse_history(text, len(ends) + 1)
    assert all(before.end == after.start for before, after in pairwise(spans))
    assert timeline_at(spans, lsn) == 1 + sum(end <= lsn for end in ends)


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "one\t0/3000000",
        "1\t0-3000000",
        "3\t0/3000000",
        "2\t0/1\n1\t0/2",
        "1\t0/2\n2\t0/1",
    ],
)
def test_a_damaged_history_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(RestoreError, match=r"00000003\.history, line \d"):
        parse_history(text, 3)


def test_lineage_reads_the_first_history_file_that_it_finds(tmp_path: Path) -> None:
    wal, stream = tmp_path / "wal", tmp_path / "stream"
    wal.mkdir()
    stream.mkdir()
    (stream / history_name(3)).write_text(THIRD)
    assert lineage(1, [wal]) == [Span(1, Lsn(0), None)]
    assert [span.timeline for span in lineage(3, [wal, stream])] == [1, 2, 3]


def test_a_lineage_without_its_history_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match=r"timeline 2: no 00000002\.history"):
        lineage(2, [tmp_path])


def test_branches_are_what_a_reader_of_one_timeline_misses(tmp_path: Path) -> None:
    (tmp_path / history_name(2)).write_text("1\t0/3000000\treason\n")
    (tmp_path / history_name(3)).write_text(THIRD)
    (tmp_path / history_name(4)).write_text("1\t0/2000000\treason\n")
    assert branches_of(1, [tmp_path]) == {2: 0x3000000, 3: 0x3000000, 4: 0x2000000}
    assert branches_of(2, [tmp_path]) == {3: 0x50000A0}
    assert branches_of(4, [tmp_path]) == {}
