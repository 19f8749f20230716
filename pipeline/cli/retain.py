"""`pipeline retain`: lets go of what the plan allows."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cli.shared import DEFAULT, Config, repository, say
from pipeline.keeping import retention


def retain(
    *,
    config: Config = DEFAULT,
    yes: Annotated[bool, typer.Option("--yes", help="remove it; otherwise only say so")] = False,
) -> None:
    """Say what the backup plan lets go and why; with --yes, remove it."""
    loaded = configuration.load(config)
    decision = retention.decide(loaded, datetime.now(UTC))
    for line in decision.lines():
        say(line)
    if yes:
        count = retention.carry_out(repository(loaded).store, decision)
        say(f"removed {count} objects")
    elif decision.removals:
        say("nothing was removed; to do it: pipeline retain --yes")
