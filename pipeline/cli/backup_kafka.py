"""`pipeline backup topics|offsets`: what the brokers hold, and how far its groups have read."""

from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cli.shared import DEFAULT, Config, repository, say
from pipeline.kafka import archive, groups
from pipeline.repository import BackupSet


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
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="leave out this topic, or all of a pattern as tmp-*; again for each"),
    ] = None,
) -> None:
    """Archive topics as the brokers hold them, up to one common end.

    What an older archive or an interrupted run has stored is used again; the new set is complete by
    itself. A topic that cannot be archived whole stops no other. Ends with exit code 1 when there
    is one, or when offsets are LOST: the set is committed, and names them.
    """
    loaded = configuration.load(config)
    taken = archive.take(
        loaded,
        repository(loaded),
        topic or (),
        say,
        full=full,
        limit=limit,
        exclude=exclude or (),
        partly=True,
    )
    lost = [
        f"{line}; the set is committed, its inventories name them" for line in archive.lost(taken)
    ]
    _end(taken, [*lost, *(f"{line}; the set is committed" for line in archive.left_out(taken))])


def backup_offsets(config: Config = DEFAULT) -> None:
    """Committed offsets of every consumer group, and which record each would read next.

    Ends with exit code 1 when a group cannot be read, or what stands at its offsets: the others are
    backed up, and the set names it.
    """
    loaded = configuration.load(config)
    taken = groups.take(loaded, repository(loaded), say, partly=True)
    missing = groups.left_out(taken)
    _end(taken, [f"not backed up whole: {line}; the set is committed" for line in missing])


def _end(taken: BackupSet, wrong: list[str]) -> None:
    """Say what the committed set lacks, then its label."""
    for line in wrong:
        say(f"{taken.label}: {line}")
    say(taken.label)
    if wrong:
        raise typer.Exit(1)
