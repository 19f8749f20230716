"""Which set may be taken for the newest: no evidence, no part, nothing foreign or misdated."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import BackupError, ConfigError, NoBackup, ObjectMissing
from pipeline.repository.kinds import CLUSTER, chosen, newest
from pipeline.repository.sets import MANIFEST, BackupSet, Repository
from pipeline.repository.store import FolderStore
from tests.sets import DAY, committed, topics

HOUR = timedelta(hours=1)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(FolderStore(tmp_path))


@pytest.fixture
def take(tmp_path: Path) -> Callable[..., BackupSet]:
    def taken(age: timedelta, kind: str = "topics", **facts: Any) -> BackupSet:  # noqa: ANN401 - JSON
        return committed(tmp_path, kind, age, facts)

    return taken


@pytest.mark.parametrize(
    ("newer", "why"),
    [
        (topics(orders="1") | {"evidence": "topics-1"}, "what topics-1 salvaged"),
        (topics(scope="orders", orders="1"), "of orders only"),
        (topics(cluster="B", orders="1"), "its cluster_id is B, expected A"),
    ],
)
def test_the_newest_archive_is_a_backup_of_everything_of_this_cluster(
    repository: Repository, take: Callable[..., BackupSet], newer: dict[str, Any], why: str
) -> None:
    whole = take(DAY, **topics(orders="1"))
    passed = take(HOUR, **newer)
    said: list[str] = []
    assert (
        newest(repository, "topics", origin=lambda: {CLUSTER: "A"}, say=said.append).label
        == whole.label
    )
    assert said == [f"passed over {passed.label}: it is {why}".replace("it is its", "its")]


@pytest.mark.parametrize(
    ("newer", "taken"),
    [
        (topics(scope="orders", orders="1"), True),
        (topics(scope="sales", sales="1"), False),
        (topics(sales="1"), False),
        (topics(orders="1") | {"limit": 3, "scope": "all topics, at most 3 records"}, False),
        (topics(orders="1") | {"evidence": "topics-1"}, False),
        (topics(orders="1") | {"incomplete": {"orders": "a replay"}}, False),
        (topics(orders="1") | {"incomplete": {"sales": "a replay"}}, True),
        (topics(cluster="B", orders="1"), False),
    ],
)
def test_of_one_topic_the_newest_is_what_holds_it_whole(
    repository: Repository, take: Callable[..., BackupSet], newer: dict[str, Any], *, taken: bool
) -> None:
    before = take(DAY, **topics(orders="1"))
    after = take(HOUR, **newer)
    found = newest(repository, "topics", topics=["orders"], origin=lambda: {CLUSTER: "A"})
    assert found.label == (after if taken else before).label


@pytest.mark.parametrize(
    ("kind", "whole", "part"),
    [
        ("logical", {"scope": "database"}, {"scope": "tables"}),
        ("logical", {"scope": "database"}, {"scope": "database, schema only"}),
        ("logical", {}, {"scope": "schemas"}),
        ("offsets", {}, {"evidence": "topics-1"}),
        ("base", {}, {"evidence": "point-in-time-1"}),
    ],
)
def test_a_part_of_any_kind_is_passed_over_and_sets_of_earlier_versions_are_whole(
    repository: Repository,
    take: Callable[..., BackupSet],
    kind: str,
    whole: dict[str, str],
    part: dict[str, str],
) -> None:
    expected = take(DAY, kind, **whole)
    take(HOUR, kind, **part)
    assert newest(repository, kind).label == expected.label


def test_a_set_from_the_future_is_not_the_newest(
    repository: Repository, take: Callable[..., BackupSet]
) -> None:
    now = take(HOUR, "base")
    take(-30 * DAY, "base")
    assert newest(repository, "base").label == now.label


def test_what_was_passed_over_is_told_where_nothing_is_left(
    repository: Repository, take: Callable[..., BackupSet]
) -> None:
    kept = take(HOUR, **topics(orders="1"), evidence="topics-1")
    with pytest.raises(NoBackup, match="no backup of topics that holds orders in") as none:
        newest(repository, "topics", topics=["orders"])
    assert f"passed over {kept.label}: it is what topics-1 salvaged" in str(none.value)


def test_a_newer_set_that_cannot_be_read_is_not_passed_over_in_silence(
    tmp_path: Path, repository: Repository, take: Callable[..., BackupSet]
) -> None:
    """An older one is no matter: who takes today's backup needs nothing of it."""
    for age, bad in ((3 * DAY, False), (2 * DAY, True), (DAY, False)):
        last = take(age, "base")
        if bad:
            (tmp_path / last.prefix / MANIFEST).write_text("{")
    assert newest(repository, "base").label == last.label
    (tmp_path / last.prefix / MANIFEST).write_text("{")
    with pytest.raises(BackupError, match="say which one by its label"):
        newest(repository, "base")


def test_one_of_another_cluster_is_taken_when_its_id_is_typed_too(
    repository: Repository, take: Callable[..., BackupSet]
) -> None:
    other = take(DAY, **topics(cluster="B", orders="1"))
    with pytest.raises(ConfigError, match=r"cluster_id is B, expected A; .* --origin B"):
        chosen(repository, "topics", other.label, origin=lambda: {CLUSTER: "A"})
    found = chosen(repository, "topics", other.label, origin=lambda: {CLUSTER: "A"}, typed="B")
    assert found.label == other.label


def test_what_somebody_names_must_hold_the_topic_and_may_be_evidence(
    repository: Repository, take: Callable[..., BackupSet]
) -> None:
    kept, said = take(DAY, **topics(orders="1"), evidence="topics-1"), list[str]()
    chosen(repository, "topics", kept.label, topics=["orders"], say=said.append)
    assert said == [f"{kept.label} is no backup, but what topics-1 salvaged"]
    with pytest.raises(ConfigError, match="does not hold sales"):
        chosen(repository, "topics", kept.label, topics=["orders", "sales"])


@pytest.mark.parametrize(
    "label",
    ["", "..", "../x", "topics-1/../2", "topics-/", "/etc/passwd", "topics-1\n", "none"],
)
def test_what_is_no_label_is_refused(repository: Repository, label: str) -> None:
    with pytest.raises(ConfigError, match="is no label of a backup set"):
        repository.get(label)


def test_a_label_of_nothing_is_told_in_a_line(repository: Repository) -> None:
    with pytest.raises(ObjectMissing, match=r"^no backup set topics-2026 in [^\n]*$"):
        repository.get("topics-2026")


def test_where_only_chosen_topics_are_archived_the_newest_of_most_is_taken(
    repository: Repository, take: Callable[..., BackupSet]
) -> None:
    take(3 * DAY, **topics(scope="orders, sales", orders="1", sales="2"))
    most = take(2 * DAY, **topics(scope="orders, sales", orders="1", sales="2"))
    take(HOUR, **topics(scope="orders", orders="1"))
    take(HOUR, **topics(scope="orders, sales, x", orders="1", sales="2", x="3"), evidence="t-1")
    assert newest(repository, "topics").label == most.label
