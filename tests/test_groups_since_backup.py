"""Which groups that are gone since their backup were anything to go on from, and how it is told."""

import pytest

from checks.rules.kafka_groups import since_backup
from pipeline.kafka.groups.groups import Group, Position
from pipeline.kafka.groups.surroundings import Seen, Surroundings

AROUND = Surroundings(topic_id="id", compacted=False, start=0, end=9)


def group(*around: Surroundings | None) -> Group:
    places = [
        Position(topic="clicks", partition=n, offset=5, metadata="", leader_epoch=None, around=one)
        for n, one in enumerate(around)
    ]
    return Group(name="g", state="", protocol="", simple=True, positions=tuple(places))


@pytest.mark.parametrize(
    ("then", "alarm"),
    [(group(), False), (group(None), False), (group(None, AROUND), True)],
    ids=["it never committed", "its topic was gone then", "it stood somewhere"],
)
def test_a_group_is_missed_only_if_it_stood_somewhere(then: Group, *, alarm: bool) -> None:
    assert any(seen.problem for seen in since_backup(then, None)) is alarm


def test_records_that_differ_in_their_time_are_told_apart() -> None:
    one, two = (Seen(offset=180, timestamp=time, sha256="98cdfa" * 11) for time in (1, 2))
    assert str(one) != str(two)
