"""`pipeline backup cdc`: slots, publications, connectors and offsets as one state."""

from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cdc.state import kept
from pipeline.cli.backup_schemas import schemas_too
from pipeline.cli.shared import DEFAULT, Config, in_turn, say, to_write


@in_turn
def backup_cdc(
    *,
    config: Config = DEFAULT,
    reread: Annotated[
        list[str] | None,
        typer.Option(
            help="this connector has read every row anew since the last set, after a recovery: its "
            "offset is of the server's present history; again for each"
        ),
    ] = None,
    gone: Annotated[
        list[str] | None,
        typer.Option(help="this connector was removed on purpose: forget it; again for each"),
    ] = None,
) -> None:
    """Slots, publications, connectors and their offsets, as one state at one LSN.

    Every slot of the server, every connector of a PostgreSQL with its settings (references are
    kept, secrets masked), states and offsets, and the topics that they write. `backup slots` is
    the same. Ends with exit code 1 when something could not be read: the set is committed, and
    names it, with the GRANT that is missing. The schema registry is backed up beside it, where one
    is configured.
    """
    loaded = configuration.load(config)
    sets = to_write(loaded)
    taken = kept.take(loaded, sets, say, reread=reread or (), gone=gone or ())
    schemas_too(loaded, sets)
    facts = taken.manifest.facts
    told = (f"{len(facts[what])} {what}" for what in ("slots", "publications", "connectors"))
    say(f"{taken.label}: {', '.join(told)} at {facts['lsn']}")
    say(taken.label)
    if facts["incomplete"]:
        raise typer.Exit(1)
