"""Checks as the gate of a drill: a recovery is judged by what judges a pipeline."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from checks.bench import Bench
from checks.check import Check, Examination, Outcome
from checks.kafka_subjects import ReplayedTopic
from checks.rules import CATALOGUE
from fixtures.reporting.model import ReportedCheck
from fixtures.scratch import Material
from pipeline.config import PipelineConfig
from pipeline.errors import NoBackup


def live_checks(config: PipelineConfig, folder: Path) -> Iterator[ReportedCheck]:
    """Run every check of what runs, on the pipeline itself; nothing is damaged or kept.

    `folder` is for what the checks note while they read.
    """
    yield from _examined(config, folder, lambda check: check.on.live)


def checks_at_rest(config: PipelineConfig, folder: Path) -> Iterator[ReportedCheck]:
    """Run every check of what lies in the repository, and of what a trial restore brings back.

    Nothing that runs is asked: a rehearsal never speaks to its source.
    """
    yield from _examined(config, folder, lambda check: not check.on.live)


def checks_of_replays(config: PipelineConfig, folder: Path) -> Iterator[ReportedCheck]:
    """Run every check of topics that were replayed into the brokers of this configuration."""
    yield from _examined(config, folder, lambda check: check.on is ReplayedTopic)


def _examined(
    config: PipelineConfig, folder: Path, chosen: Callable[[Check[Any]], bool]
) -> Iterator[ReportedCheck]:
    with Bench(_no_material, config=config, notes=folder, seed=0) as bench:
        for check in filter(chosen, CATALOGUE):
            seen = bench.examine(check)
            outcome = Outcome.NOT_RUN if _never_backed_up(seen) else seen.outcome
            told = "; ".join(f"{one.subject}: {one.problem}" for one in seen.problems)
            yield ReportedCheck(
                check.id,
                check.title,
                outcome,
                len(seen.observations),
                told or seen.trouble or "",
                closes=outcome in {Outcome.FAIL, Outcome.UNKNOWN},
            )


def _never_backed_up(seen: Examination) -> bool:
    """Whether there is nothing to compare with: what was never archived was not recovered."""
    trouble = seen.trouble or ""
    return not seen.problems and trouble.startswith(f"{NoBackup.__name__}: ")


def _no_material() -> Material:
    raise AssertionError("a gate only examines: it needs nothing to damage")
