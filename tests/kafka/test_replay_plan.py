"""A plan is exact where that meets the objective, and gives up the dearest partition first."""

from dataclasses import replace
from datetime import timedelta

import pytest

from pipeline.errors import ConfigError
from pipeline.kafka.log.gaps import Gap, Reason
from pipeline.kafka.replay.offset_map import Moved
from pipeline.kafka.replay.replay_plan import (
    By,
    Mode,
    PartitionPlan,
    _holes,
    _spread,
    appended,
    choose,
    duration,
)

PLAN = PartitionPlan(
    partition=0,
    mode=Mode.EXACT,
    first=0,
    end=1_000_000,
    start=0,
    head=0,
    records=1_000_000,
    bytes=100_000_000,
    batches=1_000,
    largest=100_000,
    gaps=0,
    markers=0,
    histogram=(),
)
RTO = timedelta(minutes=20)


def test_auto_gives_up_exactness_where_it_would_miss_the_objective() -> None:
    dear = replace(PLAN, partition=1, gaps=500_000, markers=500_000)
    dearer = replace(PLAN, partition=2, gaps=900_000, markers=900_000)
    assert duration([PLAN, dear, dearer]) > RTO
    chosen = choose([PLAN, dear, dearer], Mode.AUTO, RTO)
    assert [plan.mode for plan in chosen] == [Mode.EXACT, Mode.DENSE, Mode.DENSE]
    assert duration(chosen) < RTO
    assert [p.mode for p in choose([dear], Mode.EXACT, RTO)] == [Mode.EXACT]
    cheap = replace(dear, gaps=100)
    assert [p.mode for p in choose([cheap, dearer], Mode.AUTO, RTO)] == [Mode.EXACT, Mode.DENSE]


def test_gaps_without_the_right_to_write_markers_cost_more_and_the_plan_says_so() -> None:
    many = replace(PLAN, gaps=1_000, markers=1_000_000, histogram=(0, 0, 0, 1_000, 0))
    slow = replace(many, by=By.TRANSACTIONS)
    assert choose([many], Mode.AUTO, RTO) == [many]
    assert [plan.mode for plan in choose([slow], Mode.AUTO, RTO)] == [Mode.DENSE]
    assert "1,000,000 empty transactions in 1,000 gaps (1,000 of up to 10,000)" in str(slow)


def test_a_partition_that_is_only_large_stays_exact() -> None:
    large = replace(PLAN, bytes=10**12)
    assert duration([large]) > RTO
    assert choose([large], Mode.AUTO, RTO) == [large]


def test_gaps_are_cut_to_the_range_and_counted_where_they_meet() -> None:
    gaps = [
        Gap(0, 10, Reason.DELETED, 10),
        Gap(20, 23, Reason.ABORTED, 3),
        Gap(23, 24, Reason.MARKER, 1),
        Gap(30, 31, Reason.MARKER, 1),
        Gap(50, 100, Reason.COMPACTED, 20),
    ]
    within = list(_holes(gaps, 10, 90))
    assert sum(gap.offsets for gap in within) == 25
    assert _spread(within) == (1 + 20, 1, 0, 0, 0)


def test_appending_needs_offsets_that_are_free() -> None:
    assert appended(replace(PLAN, first=500), 400).start == 400
    with pytest.raises(ConfigError, match=r"partition 0 ends at 600, the first .* is 500"):
        appended(replace(PLAN, first=500), 600)
    assert appended(replace(PLAN, mode=Mode.DENSE), 600).start == 600


def test_a_map_leads_to_the_record_or_the_next_one() -> None:
    moved = Moved(10, 100, 0)
    moved.add(20, 0, 5)
    moved.add(25, 5, 5)
    moved.add(40, 10, 1)
    assert len(moved.counts) == 2
    assert [moved.to(offset) for offset in (0, 20, 29, 30, 40, 41, 500)] == [
        0,
        0,
        9,
        10,
        10,
        11,
        11,
    ]
