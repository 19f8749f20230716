"""Whether the checks are green on a pipeline of some shape."""

from collections.abc import Collection
from pathlib import Path

from checks import rules
from checks.bench import Bench
from checks.check import Outcome
from fixtures.scratch import Material
from pipeline.config import PipelineConfig


def not_green(
    config: PipelineConfig, folder: Path, components: Collection[str], without: Collection[str] = ()
) -> list[str]:
    """Run the checks of these components, and tell what is not PASS."""
    told = []
    with Bench(_none, config=config, notes=folder, seed=0) as bench:
        for check in rules.CATALOGUE:
            if check.component in components and check.id not in without:
                seen = bench.examine(check)
                if seen.outcome is not Outcome.PASS:
                    told.append(f"{check.id}: {seen.outcome}: {seen.trouble or seen.problems}")
    return told


def _none() -> Material:
    raise AssertionError("nothing is damaged here")
