"""`pipeline backup all`: every part, at one consistency point."""

from collections.abc import Mapping
from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cdc import schemas
from pipeline.cdc.state import kept
from pipeline.cli.backup_kafka import Gone, taken_offsets, taken_topics
from pipeline.cli.backup_schemas import unfit
from pipeline.cli.shared import DEFAULT, Config, in_turn, say, to_write
from pipeline.keeping import together
from pipeline.postgres.base import base_backup
from pipeline.repository.kinds import INCOMPLETE
from pipeline.repository.sets import BackupSet

Before = Mapping[str, BackupSet]


@in_turn
def backup_all(
    *,
    config: Config = DEFAULT,
    incremental: Annotated[
        bool, typer.Option("--incremental", help="of the base backup: only what changed")
    ] = False,
    digests: Annotated[
        bool, typer.Option("--digests", help="of the base backup: a digest of each table")
    ] = False,
    gone: Gone = None,
) -> None:
    """Back up every part as one: a set that names them, at one point.

    Writers go on meanwhile. The base backup comes first, then slots and connectors, then the
    offsets of groups, then the topics, which end where the slot's consumer has confirmed the point,
    then the registry; then the WAL up to the point is waited for. Says what a recovery from this
    alone would lose. Ends with exit code 1 when a part is not whole, or the parts are not one: the
    set is committed, and names it.
    """
    loaded = configuration.load(config)
    store = to_write(loaded)

    def base(_: Before) -> together.Taken:
        return base_backup.take(loaded, store, say, incremental=incremental, digests=digests), []

    def state(_: Before) -> together.Taken:
        taken = kept.take(loaded, store, say)
        missing = taken.manifest.facts[INCOMPLETE]
        return taken, [f"{what} could not be read: {why}" for what, why in missing.items()]

    def registry(before: Before) -> together.Taken:
        taken = schemas.take(loaded, store, say, topics=before[together.TOPICS])
        return taken, list(unfit(taken))

    parts: dict[str, together.Part] = {
        together.BASE: base,
        together.SLOTS: state,
        together.OFFSETS: lambda _: taken_offsets(loaded, store, gone=gone or ()),
        together.TOPICS: lambda _: taken_topics(loaded, store, gone=gone or ()),
    }
    if loaded.registry.configured:
        parts[together.SCHEMAS] = registry
    taken, wrong = together.take(loaded, store, parts, say)
    for line in taken.manifest.facts["loses"]:
        say(f"a recovery from this alone loses  {line}")
    for line in wrong:
        say(f"{taken.label}: {line}; the set is committed, and names it")
    say(taken.label)
    if wrong:
        raise typer.Exit(1)
