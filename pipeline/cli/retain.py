"""`pipeline retain`: lets go of what the plan allows."""

from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cli.shared import DEFAULT, Config, repository, say, to_write
from pipeline.config import PipelineConfig
from pipeline.keeping import retention
from pipeline.repository.turns import turn


def retain(
    *,
    config: Config = DEFAULT,
    yes: Annotated[bool, typer.Option("--yes", help="remove it; otherwise only say so")] = False,
) -> None:
    """Say what the backup plan lets go and why; with --yes, remove it."""
    loaded = configuration.load(config)
    if yes:
        to_write(loaded)
    with turn(str(loaded.repository.path)) if yes else nullcontext():
        _retain(loaded, yes=yes)


def _retain(loaded: PipelineConfig, *, yes: bool) -> None:
    decision = retention.decide(loaded, datetime.now(UTC))
    for line in decision.lines():
        say(line)
    if yes:
        count = retention.carry_out(repository(loaded).store, decision)
        say(f"removed {count} objects")
    elif decision.removals:
        say("nothing was removed; to do it: pipeline retain --yes")
