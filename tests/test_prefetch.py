"""WAL is read ahead of replay: the next segments, in its order, and no more than that."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.postgres import prefetch
from pipeline.postgres.lsn import Lsn, segment_name
from pipeline.postgres.segments import MergedWal
from pipeline.wait import wait_until

SIZE = 1 << 20
SOON = timedelta(seconds=10)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what was read, in that order."""
    names: list[str] = []
    really = prefetch._Ahead._read

    def noting(ahead: prefetch._Ahead, path: Path) -> None:
        really(ahead, path)
        names.append(path.name)

    monkeypatch.setattr(prefetch._Ahead, "_read", noting)
    return names


def view_of(folder: Path, *segments: tuple[int, int]) -> MergedWal:
    """Make files of a timeline and a number each."""
    names = [segment_name(timeline, Lsn(number * SIZE), SIZE) for timeline, number in segments]
    for name in names:
        (folder / name).write_bytes(b"wal")
    return MergedWal(folder, (), frozenset(names), frozenset(), SIZE)


def until(condition: Callable[[], bool]) -> None:
    wait_until("prefetch", lambda: None if condition() else "not yet", within=SOON)


def test_it_stays_so_many_segments_ahead_of_replay(tmp_path: Path, read: list[str]) -> None:
    wal = view_of(tmp_path, *((1, number) for number in range(3, 40)))
    with prefetch.prefetched(wal, Lsn(3 * SIZE)) as replayed_to:
        until(lambda: len(read) == prefetch.AHEAD)
        replayed_to(Lsn(4 * SIZE + 17))
        until(lambda: len(read) == prefetch.AHEAD + 2)
    assert read == sorted(wal.segments)[: prefetch.AHEAD + 2]


def test_it_reads_nothing_that_replay_has_behind_it(tmp_path: Path, read: list[str]) -> None:
    wal = view_of(tmp_path, *((1, number) for number in range(3, 40)))
    with prefetch.prefetched(wal, Lsn(38 * SIZE + 5)):
        until(lambda: len(read) == 2)
    assert read == sorted(wal.segments)[-2:]


def test_of_one_position_the_later_timeline_comes_first(tmp_path: Path, read: list[str]) -> None:
    wal = view_of(tmp_path, (1, 3), (1, 4), (2, 4))
    with prefetch.prefetched(wal, Lsn(3 * SIZE)):
        until(lambda: len(read) == 3)
    first, left, later = sorted(wal.segments)
    assert read == [first, later, left]


def test_a_segment_that_cannot_be_read_is_left_to_the_restore_command(
    tmp_path: Path, read: list[str]
) -> None:
    wal = view_of(tmp_path, (1, 3), (1, 4))
    gone, there = sorted(wal.segments)
    (tmp_path / gone).unlink()
    with prefetch.prefetched(wal, Lsn(3 * SIZE)):
        until(lambda: len(read) == 2)
    assert read == [gone, there]


def test_an_end_of_the_replay_ends_the_waiting(tmp_path: Path, read: list[str]) -> None:
    wal = view_of(tmp_path, *((1, number) for number in range(3, 40)))
    with (
        pytest.raises(RuntimeError, match="the server gave up"),
        prefetch.prefetched(wal, Lsn(3 * SIZE)),
    ):
        raise RuntimeError("the server gave up")
    assert len(read) <= prefetch.AHEAD
