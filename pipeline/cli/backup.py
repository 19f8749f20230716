"""`pipeline backup`: what is committed is whole."""

from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cli.shared import DEFAULT, Config, repository, say
from pipeline.kafka import archive
from pipeline.postgres import base_backup, logical

backup = typer.Typer(no_args_is_help=True, help="Take a backup now; what is committed is whole.")


@backup.command("base")
def backup_base(config: Config = DEFAULT) -> None:
    """Physical backup of the whole server, hashed while it streams."""
    loaded = configuration.load(config)
    taken = base_backup.take(loaded, repository(loaded), say)
    say(taken.label)


@backup.command("logical")
def backup_logical(
    *,
    config: Config = DEFAULT,
    table: Annotated[
        list[str] | None, typer.Option(help="only this table, with its children; repeatable")
    ] = None,
    schema_only: Annotated[bool, typer.Option("--schema-only", help="no rows")] = False,
) -> None:
    """Dump of the database in one snapshot, with a digest of each table; roles beside it."""
    loaded = configuration.load(config)
    taken = logical.take(
        loaded, repository(loaded), say, tables=table or (), schema_only=schema_only
    )
    say(taken.label)


@backup.command("topics")
def backup_topics(
    config: Config = DEFAULT,
    topic: Annotated[list[str] | None, typer.Option(help="again for each; all without it")] = None,
) -> None:
    """Archive topics as the brokers hold them, up to one common end."""
    loaded = configuration.load(config)
    say(archive.take(loaded, repository(loaded), topic or (), say).label)
