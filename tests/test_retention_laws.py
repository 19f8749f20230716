"""Whatever was kept how long, and wherever it is interrupted: what a kept backup needs stays."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import PlanConfig
from pipeline.keeping.retention import decide
from pipeline.postgres.base import chain
from pipeline.postgres.wal.lsn import Lsn, segment_name
from pipeline.repository.sets import MANIFEST
from tests.retention_cases import DAY, NOW, Archive, Killed, position


@contextmanager
def lived(ages: Mapping[int, bool], plan: PlanConfig) -> Iterator[Archive]:
    """Base backups of those ages, and WAL of every day since long before them.

    Those that are true build on the one before them, where there is one.
    """
    with tempfile.TemporaryDirectory() as folder:
        archive, last = Archive(Path(folder), plan), None
        for age in sorted(ages, reverse=True):
            last = archive.take(age, on=last if ages[age] else None)
        for age in range(45):
            archive.archive(age)
        yield archive


def whole(archive: Archive) -> bool:
    """Whether every set has its objects, every base backup its chain and the WAL since."""
    kept = list(archive.repository)
    if any(chain.broken(found) for found in kept):
        return False
    present = set(archive.repository.store.list())
    starts = [Lsn.parse(found.manifest.facts["start_lsn"]) for found in kept]
    days = [position(age) for age in range(45)]
    needed = {segment_name(1, at) for at in days if at >= min(starts, default=Lsn(1 << 62))}
    objects = {entry.key for found in kept for entry in found.manifest.objects}
    return objects <= present and needed <= archive.wal()


ages = st.dictionaries(st.integers(0, 40), st.booleans(), min_size=1, max_size=8)
plans = st.builds(
    PlanConfig,
    base=st.integers(1, 20).map(lambda days: days * DAY),
    wal=st.integers(1, 20).map(lambda days: days * DAY),
)


@settings(max_examples=60)
@given(ages=ages, plan=plans, deletions=st.integers(0, 60))
def test_an_interruption_leaves_whole_sets_and_the_next_run_what_an_unbroken_one_does(
    ages: dict[int, bool], plan: PlanConfig, deletions: int
) -> None:
    with lived(ages, plan) as broken, lived(ages, plan) as unbroken:
        try:
            broken.retain(deletions)
        except Killed:
            assert whole(broken)
        broken.retain()
        unbroken.retain()
        assert whole(broken)
        for archive in (broken, unbroken):
            assert decide(archive.config, NOW).removals == ()
        assert broken.wal() == unbroken.wal()
        left = [[found.manifest.finished for found in a.repository] for a in (broken, unbroken)]
        assert left[0] == left[1]
        objects = [key for key in broken.repository.store.list("sets/") if MANIFEST not in key]
        assert len(objects) == 2 * len(left[0])  # no object without a manifest is left


@settings(max_examples=60)
@given(ages=ages, plan=plans)
def test_what_goes_is_old_and_every_moment_of_the_window_stays_reachable(
    ages: dict[int, bool], plan: PlanConfig
) -> None:
    with lived(ages, plan) as archive:
        archive.retain()
        left = {(NOW - found.manifest.finished).days for found in archive.repository}
        before = [age for age in ages if age * DAY >= plan.wal]
        wanted = {age for age in ages if age * DAY <= plan.base}
        wanted |= {min(ages), min(before) if before else max(ages)}
        assert left == {age for each in wanted for age in chain_of(each, ages)}


def chain_of(age: int, ages: Mapping[int, bool]) -> Iterator[int]:
    """That backup and all on which it builds."""
    yield age
    older = [other for other in ages if other > age]
    if ages[age] and older:
        yield from chain_of(min(older), ages)
