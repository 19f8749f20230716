"""Every offset without a record has its reason, and what has none is LOST."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kafka.log.batches import Batch, Marker
from pipeline.kafka.log.gaps import Aborted, Gap, Gaps, Reason, totals


def data(base: int, count: int = 1, *, producer: int = -1, records: int | None = None) -> Batch:
    attributes = 0x10 if producer >= 0 else 0
    held = count if records is None else records
    return Batch(base, 0, 0, 2, 0, attributes, count - 1, 0, 0, producer, 0, 0, held)


def ended(base: int, producer: int) -> Batch:
    return Batch(base, 0, 0, 2, 0, 0x30, 0, 0, 0, producer, 0, -1, 1)


def test_a_dense_log_has_no_gaps() -> None:
    gaps = Gaps(0, compacted=False)
    gaps.see(data(0, 10), None)
    gaps.see(data(10, 5), None)
    assert list(gaps.cut(15)[0]) == []


def test_a_hole_is_lost_unless_the_topic_is_compacted() -> None:
    for compacted, reason in ((False, Reason.LOST), (True, Reason.COMPACTED)):
        gaps = Gaps(0, compacted=compacted)
        gaps.see(data(0, 10), None)
        gaps.see(data(14), None)
        assert list(gaps.cut(15)[0]) == [Gap(10, 14, reason, 4)]


def test_a_missing_tail_is_a_hole_like_any_other() -> None:
    gaps = Gaps(0, compacted=False)
    gaps.see(data(0, 10), None)
    assert list(gaps.cut(12)[0]) == [Gap(10, 12, Reason.LOST, 2)]


def test_what_retention_deletes_under_the_reader_is_told_apart() -> None:
    gaps = Gaps(5, compacted=False)
    gaps.see(data(0, 10), None)  # the log starts inside a batch after DeleteRecords
    gaps.deleted_until(20)
    gaps.see(data(20), None)
    assert list(gaps.cut(21)[0]) == [Gap(10, 20, Reason.DELETED, 10)]


def test_compaction_inside_a_batch_is_counted() -> None:
    gaps = Gaps(0, compacted=True)
    gaps.see(data(0, 10, records=3), None)
    gaps.see(data(10, 10, records=9), None)
    assert totals(list(gaps.cut(20)[0])) == {Reason.COMPACTED: 8}


def test_committed_and_aborted_transactions_of_one_producer() -> None:
    gaps = Gaps(0, compacted=False, aborted=[Aborted(7, 4)])
    gaps.see(data(0, 3, producer=7), None)
    gaps.see(ended(3, 7), Marker.COMMIT)
    gaps.see(data(4, 2, producer=7), None)
    gaps.see(data(6, 2, producer=8), None)
    gaps.learn([Aborted(7, 4)])  # the next answer of the broker tells it again
    gaps.see(ended(8, 7), Marker.ABORT)
    gaps.see(data(9, 2, producer=7), None)
    gaps.see(ended(11, 8), Marker.COMMIT)
    gaps.see(ended(12, 7), Marker.COMMIT)
    assert list(gaps.cut(13)[0]) == [
        Gap(3, 4, Reason.MARKER, 1),
        Gap(4, 6, Reason.ABORTED, 2),
        Gap(8, 9, Reason.MARKER, 1),
        Gap(11, 13, Reason.MARKER, 2),
    ]


@given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=1), st.integers(0, 30))
def test_batches_and_gaps_tile_the_log(pieces: list[tuple[int, bool]], log_start: int) -> None:
    gaps, position, held = Gaps(log_start, compacted=False), log_start, 0
    for size, present in pieces:
        if present:
            gaps.see(data(position, size), None)
            held += size
        position += size
    found = list(gaps.cut(position)[0])
    assert log_start + held + sum(gap.offsets for gap in found) == position
    assert all(left.end <= right.first for left, right in pairwise(found))


def test_a_cut_inside_an_aborted_transaction_keeps_what_is_needed_to_judge_each_side() -> None:
    told = Aborted(7, 0)
    whole = Gaps(0, compacted=False, aborted=[told])
    whole.see(data(0, 2, producer=7), None)
    assert whole.cut(2) == ((Gap(0, 2, Reason.ABORTED, 2),), (told,))
    whole.see(data(2, 2, producer=7), None)
    whole.see(ended(4, 7), Marker.ABORT)
    gaps, aborted = whole.cut(5)
    alone = Gaps(2, compacted=False, aborted=aborted)
    alone.see(data(2, 2, producer=7), None)
    alone.see(ended(4, 7), Marker.ABORT)
    assert alone.cut(5) == (gaps, aborted)
    assert gaps == (Gap(2, 4, Reason.ABORTED, 2), Gap(4, 5, Reason.MARKER, 1))
    assert whole.cut(5) == ((), ())


@pytest.mark.parametrize("ended_by", Marker)
def test_a_marker_that_contradicts_the_list_of_aborted_transactions_is_told(
    ended_by: Marker,
) -> None:
    """Whoever believes the list leaves records out that the marker commits, or the other way."""
    listed = [Aborted(7, 4)] if ended_by is Marker.COMMIT else []
    gaps = Gaps(0, compacted=False, aborted=listed)
    assert gaps.see(data(4, 2, producer=7), None) is None
    told = gaps.see(ended(6, 7), ended_by)
    assert told is not None
    assert told.startswith(f"the marker at 6 says {ended_by.name} of a transaction of producer 7")
    later = Gaps(6, compacted=False, aborted=[Aborted(7, 4)])  # it begins in the segment before
    assert later.see(ended(6, 7), Marker.COMMIT) is not None


def test_a_marker_of_a_transaction_without_batches_contradicts_nothing() -> None:
    """An aborted one that wrote elsewhere is in no list; nor is one whose batches have gone."""
    gaps = Gaps(0, compacted=False)
    assert gaps.see(ended(0, 7), Marker.ABORT) is None
    assert gaps.see(data(1, 2, producer=7), None) is None
    gaps.deleted_until(20)
    assert gaps.see(ended(20, 7), Marker.ABORT) is None
    assert gaps.see(data(21, 2, producer=7), None) is None
    assert gaps.see(ended(30, 7), Marker.ABORT) is None, "what is LOST may have been its marker"
    cleaned = Gaps(0, compacted=True, aborted=[Aborted(7, 4)])
    assert cleaned.see(ended(9, 7), Marker.COMMIT) is None
    assert cleaned.see(data(10, 1, producer=7), None) is None
    assert cleaned.see(ended(11, 7), Marker.COMMIT) is None
