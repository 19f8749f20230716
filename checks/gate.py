"""The live checks as the gate of a drill: a recovery is judged by what judges a pipeline."""

from collections.abc import Iterator
from pathlib import Path

from checks.bench import Bench
from checks.check import Examination, Outcome
from checks.rules import CATALOGUE
from fixtures.reporting.model import ReportedCheck
from fixtures.scratch import Material
from pipeline.config import PipelineConfig
from pipeline.errors import NoBackup


def live_checks(config: PipelineConfig, folder: Path) -> Iterator[ReportedCheck]:
    """Run every check of what runs, on the pipeline itself; nothing is damaged or kept.

    `folder` is for what the checks note while they read.
    """
    with Bench(_no_material, config=config, notes=folder, seed=0) as bench:
        for check in (check for check in CATALOGUE if check.on.live):
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
