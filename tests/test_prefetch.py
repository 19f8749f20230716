"""WAL is brought ahead of replay: the next segments, in its order, and no more than that."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.config import PipelineConfig, RepositoryConfig
from pipeline.postgres import archiving, prefetch, wal_command
from pipeline.postgres.lsn import Lsn, segment_name
from pipeline.postgres.segments import MergedWal
from pipeline.postgres.tools import Tools
from pipeline.wait import wait_until

SIZE = 16 << 20
AHEAD = 8  # segments of that size
SOON = timedelta(seconds=10)


class Place:
    """A view of an archive, and the pg_wal of a server."""

    def __init__(self, folder: Path) -> None:
        self.view, self.pg_wal = folder / "view", folder / "pg_wal"
        self.view.mkdir()
        self.pg_wal.mkdir()
        self.config = PipelineConfig(repository=RepositoryConfig(path=self.view))

    def wal(self, *segments: tuple[int, int], unfinished: int = 0) -> MergedWal:
        """Make files of a timeline and a number each; the last so many may be unfinished."""
        names = [segment_name(timeline, Lsn(number * SIZE), SIZE) for timeline, number in segments]
        for name in names:
            (self.view / name).write_text(name)
        still = frozenset(names[len(names) - unfinished :])
        return MergedWal(self.view, (), frozenset(names), still, SIZE)

    @property
    def ready(self) -> list[str]:
        """What lies ready, whole."""
        folder = self.pg_wal / prefetch.PREFETCHED
        return sorted(path.name for path in folder.glob("?" * 24))

    @contextmanager
    def prefetched(self, wal: MergedWal, start: int) -> Iterator[Callable[[Lsn], None]]:
        with prefetch.prefetched(wal, Lsn(start), self.pg_wal, Tools()) as replayed_to:
            yield replayed_to

    def get(self, name: str) -> int:
        """What the server hears from its restore_command, which it runs in its data folder."""
        line = archiving.get_command(self.config, self.view).replace("%f", name)
        words = ["/bin/sh", "-c", line.replace("%p", "pg_wal/RECOVERYXLOG")]
        return subprocess.run(words, check=False, cwd=self.pg_wal.parent).returncode

    def until(self, count: int) -> None:
        def waiting() -> str | None:
            return None if len(self.ready) == count else f"{len(self.ready)} are ready"

        wait_until("prefetch", waiting, within=SOON)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_it_stays_so_far_ahead_of_replay(place: Place) -> None:
    wal = place.wal(*((1, number) for number in range(3, 40)))
    names = sorted(wal.segments)
    with place.prefetched(wal, 3 * SIZE) as replayed_to:
        place.until(AHEAD + 1)
        assert place.ready == names[: AHEAD + 1]
        assert place.get(names[0]) == 0
        replayed_to(Lsn(4 * SIZE + 17))
        wait_until("more", lambda: None if names[9] in place.ready else "not yet", within=SOON)
    assert not (place.pg_wal / prefetch.PREFETCHED).exists()


def test_what_lies_ready_is_moved_and_asked_for_again_it_is_copied(place: Place) -> None:
    wal = place.wal((1, 3))
    (name,), into = wal.segments, place.pg_wal / "RECOVERYXLOG"
    with place.prefetched(wal, 3 * SIZE):
        place.until(1)
        assert place.get(name) == wal_command.DONE
        assert (into.read_text(), place.ready) == (name, [])
        into.unlink()
        assert place.get(name) == wal_command.DONE
        assert into.read_text() == name


def test_what_replay_has_overtaken_is_neither_brought_nor_kept(place: Place) -> None:
    wal = place.wal(*((1, number) for number in range(3, 40)))
    with place.prefetched(wal, 3 * SIZE) as replayed_to:
        place.until(AHEAD + 1)
        replayed_to(Lsn(38 * SIZE + 5))
        place.until(2)
        assert place.ready == sorted(wal.segments)[-2:]


def test_of_one_position_the_later_timeline_comes_first(place: Place) -> None:
    first, left, later = sorted(place.wal((1, 3), (1, 4), (2, 4)).segments)
    wal = place.wal((1, 3), (1, 4), (2, 4))
    found = prefetch._Ahead(wal, Lsn(0), place.pg_wal, Tools())._segments()
    assert [name for _, name in found] == [first, later, left]


def test_what_may_still_be_written_to_is_left_to_the_restore_command(place: Place) -> None:
    wal = place.wal((1, 3), (1, 4), unfinished=1)
    with place.prefetched(wal, 3 * SIZE):
        place.until(1)
    found = prefetch._Ahead(wal, Lsn(0), place.pg_wal, Tools())._segments()
    assert [name for _, name in found] == sorted(wal.segments)[:1]


def test_a_segment_that_cannot_be_read_costs_nothing(place: Place) -> None:
    wal = place.wal((1, 3), (1, 4))
    gone, there = sorted(wal.segments)
    (place.view / gone).unlink()
    with place.prefetched(wal, 3 * SIZE):
        place.until(1)
        assert place.ready == [there]
        assert place.get(gone) == wal_command.ABSENT


def test_what_a_killed_replay_left_is_not_taken_for_ready(place: Place) -> None:
    wal = place.wal((1, 3))
    (name,), spool = wal.segments, place.pg_wal / prefetch.PREFETCHED
    spool.mkdir()
    (spool / name).write_text("of another archive")
    (spool / segment_name(1, Lsn(9 * SIZE), SIZE)).write_text("of another archive")
    with place.prefetched(wal, 3 * SIZE):
        place.until(1)
        assert (spool / name).read_text() == name


def test_an_end_of_the_replay_ends_the_waiting(place: Place) -> None:
    wal = place.wal(*((1, number) for number in range(3, 40)))
    with pytest.raises(RuntimeError, match="gave up"), place.prefetched(wal, 3 * SIZE):
        raise RuntimeError("the server gave up")
    assert not (place.pg_wal / prefetch.PREFETCHED).exists()


def test_a_repository_that_does_not_answer_hides_no_error(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does Ctrl-C wait for it: a read from a file system that hangs never comes back."""
    answered, wal = threading.Event(), place.wal((1, 3))
    monkeypatch.setattr(prefetch._Ahead, "_copy", lambda *_: answered.wait())
    with pytest.raises(RuntimeError, match="stalled"), place.prefetched(wal, 3 * SIZE):
        raise RuntimeError("replay stalled")
    (left,) = (one for one in threading.enumerate() if one.name == "prefetch of WAL")
    answered.set()
    left.join()
