"""Every object is read when its turn comes, and what is not damage raises no alarm."""

import tempfile
from fractions import Fraction
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.keeping.verify import SHARE
from pipeline.postgres.wal.lsn import Lsn, segment_name
from tests.verification.kept import DAY, NOW, SEGMENT, Kept, read


def test_everything_is_read_once_and_not_again_that_night(kept: Kept) -> None:
    first = kept.verify()
    assert (first.damaged, len(first.read), first.size) == ([], 11, first.survey.size)
    second = kept.verify()
    assert (second.damaged, read(second)) == ([], [])
    assert second.oldest is not None
    assert second.oldest.read == NOW


def test_full_reads_everything_again(kept: Kept) -> None:
    kept.verify()
    assert len(kept.verify(full=True).read) == 11


@settings(max_examples=12)
@given(
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=12),
    days=st.integers(1, 9),
    nights=st.lists(st.floats(0.8, 1.2), min_size=14, max_size=14),
)
def test_no_object_stays_unread_for_longer_than_the_share_says(
    sizes: list[int], days: int, nights: list[float]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kept, at, share = Kept(Path(folder)), 0.0, Fraction(1, days)
        kept.commit(NOW, tuple(sizes))
        for night in nights:
            run = kept.verify(at, share=share)
            assert not run.damaged
            assert run.oldest is not None
            assert NOW + at * DAY - run.oldest.read < days * DAY
            at += night


def test_a_usual_night_reads_its_share_oldest_first(kept: Kept) -> None:
    kept.verify()
    seen: list[str] = []
    for night in range(1, 6):  # five large segments, and each is more than 1/7
        run = kept.verify(night)
        assert run.size < 2 * run.survey.size * SHARE + SEGMENT
        seen += read(run)
    assert len(seen) == len(set(seen)) == 11


def test_what_retention_takes_is_told_and_is_no_damage(kept: Kept) -> None:
    kept.verify()
    store, prefix = kept.repository.store, kept.first().rpartition("/")[0]
    going = [*store.list(prefix), *kept.segments()[:2]]
    for key in going:
        store.delete(key)
    run = kept.verify()
    assert (run.damaged, sorted(run.survey.gone)) == ([], sorted(going))
    assert kept.verify().survey.gone == []


def test_a_streamed_twin_is_enough(kept: Kept) -> None:
    streamed = kept.archive(12, "stream/00000001")
    kept.verify()
    kept.repository.store.delete("wal/" + Path(streamed).name)
    assert kept.verify().damaged == []


def test_what_no_manifest_lists_is_named(kept: Kept) -> None:
    inside = str(Path(kept.first()).with_name("stray"))
    for key in (inside, "sets/base/base-20260301T010101Z-0000/base.tar.zst"):
        kept.repository.store.put(key, [b"x"])
    run = kept.verify()
    assert len(run.survey.unlisted) == 2
    assert f"{inside}: no manifest lists it" in run.survey.unlisted
    assert run.damaged == []


def test_a_segment_that_still_grows_is_not_judged(kept: Kept) -> None:
    growing = (
        kept.root / "stream/00000001" / (segment_name(1, Lsn(15 * SEGMENT), SEGMENT) + ".partial")
    )
    growing.parent.mkdir(parents=True)
    growing.write_bytes(b"x")
    kept.verify()
    growing.write_bytes(b"yy")
    assert kept.verify().damaged == []
