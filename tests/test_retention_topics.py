"""Sets of topics share segments: what one of them keeps, another's end does not take."""

import tempfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import PipelineConfig, PlanConfig, RepositoryConfig
from pipeline.keeping.retention import carry_out, decide
from pipeline.repository.sets import MANIFEST, BackupSet, Manifest, Repository
from pipeline.repository.store import FolderStore, StoredObject
from tests.retention_cases import DAY, NOW, Killed, Mortal

COMMITTED, ABANDONED = True, False


def archived(
    root: Path, runs: Mapping[int, tuple[bool, frozenset[int]]], scope: str = "all topics"
) -> list[BackupSet]:
    """One run at each age in days; it takes over those older segments, and adds one of its own.

    Segments are numbered by the run that wrote them, oldest first; abandoned runs commit none.
    """
    repository, segments, sets = Repository(FolderStore(root)), list[StoredObject](), []
    for age in sorted(runs, reverse=True):
        committed, wanted = runs[age]
        at = NOW - age * DAY
        label = repository.new_label("topics", at - timedelta(hours=1))
        prefix = f"sets/topics/{label}/"
        own = repository.store.put(f"{prefix}orders/0/{age:020d}.batches", [b"x"])
        shared = [each for number, each in enumerate(segments) if number in wanted]
        segments.append(own)
        if committed is ABANDONED:
            continue
        manifest = Manifest(
            kind="topics",
            label=label,
            started=at - timedelta(hours=1),
            finished=at,
            made_by="test",
            facts={"scope": scope},
            objects=(*shared, own, repository.store.put(prefix + "index.json", [b"{}"])),
        )
        sets.append(repository.commit(manifest))
    return sets


def retain(root: Path, plan: PlanConfig, deletions: int = -1) -> None:
    config = PipelineConfig(repository=RepositoryConfig(path=root), plan=plan)
    carry_out(Mortal(root, deletions), decide(config, NOW))


def missing(root: Path) -> set[str]:
    """Objects that a set lists and nobody has any more."""
    repository = Repository(FolderStore(root))
    listed = {entry.key for found in repository for entry in found.manifest.objects}
    return listed - set(repository.store.list())


def unlisted(root: Path) -> set[str]:
    repository = Repository(FolderStore(root))
    listed = {entry.key for found in repository for entry in found.manifest.objects}
    present = {key for key in repository.store.list("sets/") if not key.endswith(MANIFEST)}
    return present - listed


runs = st.dictionaries(
    st.integers(2, 60),
    st.tuples(st.booleans(), st.frozensets(st.integers(0, 7), max_size=6)),
    min_size=1,
    max_size=8,
)
plans = st.integers(1, 40).map(lambda days: PlanConfig(topics=days * DAY))


@settings(max_examples=40)
@given(runs=runs, plan=plans, deletions=st.integers(0, 20))
def test_every_object_of_a_kept_set_stays_whatever_goes_and_whenever_it_is_interrupted(
    runs: dict[int, tuple[bool, frozenset[int]]], plan: PlanConfig, deletions: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sets = archived(root, runs)
        try:
            retain(root, plan, deletions)
        except Killed:
            assert missing(root) == set()
        retain(root, plan)
        left = Repository(FolderStore(root)).labels()
        young = [found for found in sets if found.manifest.finished >= NOW - plan.topics]
        assert left == [found.label for found in young or sets[-1:]]
        assert missing(root) == set()
        too_young = {
            f"{(NOW - age * DAY - timedelta(hours=1)):%Y%m%dT%H%M%S}"
            for age, (committed, _) in runs.items()
            if not committed and age * DAY + timedelta(hours=1) <= plan.topics
        }
        assert {key.split("/")[2].split("-")[1][:-1] for key in unlisted(root)} <= too_young


def test_an_abandoned_run_goes_but_for_what_was_taken_over_from_it(tmp_path: Path) -> None:
    (kept,) = archived(
        tmp_path,
        {
            50: (ABANDONED, frozenset()),
            45: (ABANDONED, frozenset()),
            5: (COMMITTED, frozenset({1})),
        },
    )
    config = PipelineConfig(repository=RepositoryConfig(path=tmp_path))
    (gone,) = decide(config, NOW).removals
    assert (len(gone.keys), gone.why) == (1, "has no manifest: never finished, or half removed")
    assert gone.keys[0].endswith(f"{50:020d}.batches")
    retain(tmp_path, config.plan)
    assert (missing(tmp_path), unlisted(tmp_path)) == (set(), set())
    assert Repository(FolderStore(tmp_path)).labels() == [kept.label]


def test_one_topic_does_not_take_the_place_of_all(tmp_path: Path) -> None:
    (everything,) = archived(tmp_path, {50: (COMMITTED, frozenset())})
    (single,) = archived(tmp_path, {1: (COMMITTED, frozenset())}, scope="orders")
    retain(tmp_path, PlanConfig())
    assert Repository(FolderStore(tmp_path)).labels() == [everything.label, single.label]


@pytest.mark.parametrize(("age", "stays"), [(29, True), (31, False)])
def test_topics_are_kept_thirty_days(tmp_path: Path, age: int, *, stays: bool) -> None:
    old, _ = archived(tmp_path, {age: (COMMITTED, frozenset()), 1: (COMMITTED, frozenset())})
    retain(tmp_path, PlanConfig())
    assert (old.label in Repository(FolderStore(tmp_path)).labels()) is stays
