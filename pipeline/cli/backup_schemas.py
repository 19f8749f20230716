"""`pipeline backup schemas`: the registry, without which archived records are bytes."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cdc import schemas
from pipeline.cli.shared import DEFAULT, Config, in_turn, say, to_write
from pipeline.config import PipelineConfig
from pipeline.errors import PipelineError
from pipeline.registry.schemas import READWRITE
from pipeline.repository.sets import BackupSet, Repository

GLANCE = timedelta(seconds=5)
"""How long another backup waits for a registry that is away."""


@in_turn
def backup_schemas(
    *,
    config: Config = DEFAULT,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="what the set before knew is gone on purpose")
    ] = False,
) -> None:
    """Back up the schema registry: schemas with their ids, settings, and its storage topic.

    Ids are collected from the records of the newest archive of topics. Ends with exit code 1 when
    the registry does not explain one of them, has lost or changed what the set before knew, or is
    not in mode READWRITE: the set is committed, and names it.
    """
    loaded = configuration.load(config)
    taken = schemas.take(loaded, to_write(loaded), say, accept=accept_changes)
    wrong = list(unfit(taken))
    for line in wrong:
        say(f"{taken.label}: {line}; the set is committed, and names it")
    say(taken.label)
    if wrong:
        raise typer.Exit(1)


def schemas_too(loaded: PipelineConfig, kept: Repository, topics: BackupSet | None = None) -> None:
    """Take the registry along with a backup of what needs it; that one stands without it.

    A registry that is away must not keep topics and offsets from being backed up. That it was
    away is said, and `kafka.backups-recent` tells when that goes on.
    """
    if not loaded.registry.configured:
        return
    try:
        taken = schemas.take(loaded, kept, say, topics=topics, patience=GLANCE)
    except PipelineError as error:
        say(f"NO BACKUP OF THE SCHEMA REGISTRY: {error}")
        say("without it these records may be bytes: set registry.url to '' where there is none")
        return
    for line in unfit(taken):
        say(f"{taken.label}: {line}; the set is committed, and names it")
    say(taken.label)


def unfit(taken: BackupSet) -> Iterator[str]:
    """Say what a set of the registry must not pass for."""
    facts = taken.manifest.facts
    for what, why in facts.get("differs", {}).items():
        yield f"not as in {facts['differs_from']}: {what}: {why}"
    for what, where in facts["unresolved"].items():
        yield f"no schema explains {what}: {where}"
    if facts["mode"] != READWRITE:
        yield f"the registry is in mode {facts['mode']}"
