"""What sets lost against those before them: topics, their lives, groups; and what explains it."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.kafka.archive.losses import losses, of_repository
from pipeline.repository.sets import MANIFEST, Repository
from pipeline.repository.store import FolderStore
from tests.sets import DAY, committed, groups, topics

WHOLE, OTHER = topics(orders="1", sales="2"), topics(orders="1", sales="3")
ANEW = ["sales was made anew"]


def lost(root: Path, kind: str, *nights: dict[str, Any], made: tuple[str, ...] = ()) -> list[str]:
    """Commit a set each night and tell what is lost after the last one."""
    count = len(nights)
    sets = [committed(root, kind, (count - n) * DAY, facts) for n, facts in enumerate(nights)]
    return [f"{one.name} {one.why}" for one in losses(sets, made).values()]


@pytest.mark.parametrize(
    ("nights", "expected"),
    [
        ([WHOLE, topics(orders="1")], ["sales is gone"]),
        ([WHOLE, topics(orders="1"), topics(orders="1")], ["sales is gone"]),
        ([WHOLE, topics(orders="1"), WHOLE], []),
        ([WHOLE, OTHER], ANEW),
        ([WHOLE, OTHER, OTHER], ANEW),
        ([WHOLE, topics(orders="1", sales="3-")], ANEW),
        ([WHOLE, topics(orders="1", sales="2-")], ["sales is empty"]),
        ([topics(sales="2-"), topics(orders="1")], []),
        ([WHOLE, topics(scope="orders", orders="1")], []),
        ([WHOLE, topics(scope="orders", orders="4")], ["orders was made anew"]),
        ([WHOLE, topics(orders="1") | {"accepted": ["sales"]}], []),
        ([WHOLE, topics(orders="1"), topics(orders="1") | {"accepted": ["sales"]}], []),
        ([WHOLE, OTHER | {"accepted": ["sales"]}, WHOLE], ANEW),
    ],
)
def test_topics_and_their_lives(
    tmp_path: Path, nights: list[dict[str, Any]], expected: list[str]
) -> None:
    assert lost(tmp_path, "topics", *nights) == expected


def test_a_life_that_a_replay_made_goes_on_with_the_one_before(tmp_path: Path) -> None:
    assert lost(tmp_path, "topics", WHOLE, topics(orders="9", sales="2"), made=("9",)) == []


@pytest.mark.parametrize(
    ("nights", "expected"),
    [
        ([groups(a="orders", b="orders"), groups(a="orders")], ["b in orders has no offsets"]),
        ([groups(a="orders sales"), groups(a="sales")], ["a in orders has no offsets"]),
        ([groups(a="orders"), groups(a="")], ["a in orders has no offsets"]),
        ([groups(a="orders"), groups(), groups(a="orders")], []),
        ([groups(a="orders sales"), groups() | {"accepted": ["a"]}], []),
        (
            [groups(a="orders sales"), groups() | {"accepted": ["a in sales"]}],
            ["a in orders has no offsets"],
        ),
    ],
)
def test_groups_and_their_offsets(
    tmp_path: Path, nights: list[dict[str, Any]], expected: list[str]
) -> None:
    assert lost(tmp_path, "offsets", *nights) == expected


def test_what_was_salvaged_and_what_is_of_another_cluster_is_not_compared_with(
    tmp_path: Path,
) -> None:
    for age, facts in enumerate(
        [
            topics(cluster="B", bills="7"),
            topics(orders="1", sales="2", kept="3") | {"evidence": "topics-1"},
            topics(orders="1", kept="4") | {"limit": 5},
        ]
    ):
        committed(tmp_path, "topics", (9 - age) * DAY, facts)
    last = committed(tmp_path, "topics", timedelta(0), WHOLE)
    assert of_repository(Repository(FolderStore(tmp_path)), last.manifest) == {}


def test_a_set_that_cannot_be_read_is_told_and_the_others_are_compared(tmp_path: Path) -> None:
    first = committed(tmp_path, "topics", 3 * DAY, WHOLE)
    bad = committed(tmp_path, "topics", 2 * DAY, WHOLE)
    (tmp_path / bad.prefix / MANIFEST).write_text("{")
    last, said = committed(tmp_path, "topics", DAY, topics(orders="1")), list[str]()
    found = of_repository(Repository(FolderStore(tmp_path)), last.manifest, say=said.append)
    assert (found["sales"].held_by, found["sales"].missed_by) == (first.label, last.label)
    assert bad.label in said[0]
