"""`pipeline backup topics|offsets`: what the brokers hold, and how far its groups have read."""

from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cli.shared import DEFAULT, Config, repository, say
from pipeline.kafka import archive, groups


def backup_topics(
    *,
    config: Config = DEFAULT,
    topic: Annotated[list[str] | None, typer.Option(help="again for each; all without it")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="read everything again, not only what is new")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="about that many records of each topic, from its log start"),
    ] = None,
) -> None:
    """Archive topics as the brokers hold them, up to one common end.

    What an older archive or an interrupted run has stored is used again; the new set is complete by
    itself. Ends with exit code 1 when offsets are LOST: the set is committed, and names them.
    """
    loaded = configuration.load(config)
    taken = archive.take(loaded, repository(loaded), topic or (), say, full=full, limit=limit)
    lost = archive.lost(taken)
    for line in lost:
        say(f"{taken.label}: {line}; the set is committed, its inventories name them")
    say(taken.label)
    if lost:
        raise typer.Exit(1)


def backup_offsets(config: Config = DEFAULT) -> None:
    """Committed offsets of every consumer group, and which record each would read next."""
    loaded = configuration.load(config)
    say(groups.take(loaded, repository(loaded), say).label)
