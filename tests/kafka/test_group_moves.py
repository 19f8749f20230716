"""Offsets at which nobody could look when they were noted: where they go, and where they do not."""

import pytest

from pipeline.kafka.groups.group_moves import Decided, Exact, Fate, judge
from pipeline.kafka.groups.groups import Position
from pipeline.kafka.groups.surroundings import UNDECIDED, Surroundings


def around(topic_id: str, end: int, unseen: str | None = None) -> Surroundings:
    return Surroundings(topic_id=topic_id, compacted=False, start=0, end=end, unseen=unseen)


def position(offset: int) -> Position:
    noted = around("first", 200, UNDECIDED)
    return Position(
        topic="t", partition=0, offset=offset, metadata="", leader_epoch=3, around=noted
    )


def judged(now: Surroundings, moves: Exact, offset: int = 150) -> Decided | str:
    return judge(position(offset), position(offset).spot, now, moves)


def test_in_the_same_life_of_the_topic_it_goes_back() -> None:
    decided = judged(around("first", 200), Exact({}))
    assert isinstance(decided, Decided)
    assert (decided.fate, decided.to.offset, decided.leader_epoch) == (Fate.UNSEEN, 150, 3)


def test_behind_what_a_replay_brought_back_it_is_clamped() -> None:
    """What stands there now was written afterwards: a group that went there would skip it."""
    decided = judged(around("second", 500), Exact({("t", 0): 100}))
    assert isinstance(decided, Decided)
    assert (decided.fate, decided.to.offset) == (Fate.CLAMPED, 100)


def test_what_a_replay_brought_back_stands_there() -> None:
    decided = judged(around("second", 500), Exact({("t", 0): 180}))
    assert isinstance(decided, Decided)
    assert (decided.fate, decided.to.offset, decided.leader_epoch) == (Fate.UNSEEN, 150, None)


def test_in_another_life_that_no_replay_made_it_goes_nowhere() -> None:
    told = judged(around("second", 500), Exact({}))
    assert "other records may stand there now" in str(told)


@pytest.mark.parametrize("unseen", [UNDECIDED, "it has no leader"])
def test_what_cannot_be_looked_at_now_is_told(unseen: str) -> None:
    assert judged(around("first", 200, unseen), Exact({})) == f"t[0]@150: {unseen}"
