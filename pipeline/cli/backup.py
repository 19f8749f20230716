"""`pipeline backup`: what is committed is whole."""

from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cli.shared import DEFAULT, Config, repository, say
from pipeline.kafka import archive, groups
from pipeline.postgres import base_backup, logical

backup = typer.Typer(no_args_is_help=True, help="Take a backup now; what is committed is whole.")


@backup.command("base")
def backup_base(
    *,
    config: Config = DEFAULT,
    incremental: Annotated[
        bool,
        typer.Option(
            "--incremental",
            help="only what changed since the newest base backup; PostgreSQL 17, summarize_wal on",
        ),
    ] = False,
) -> None:
    """Physical backup of the whole server, tablespaces included, hashed while it streams."""
    loaded = configuration.load(config)
    taken = base_backup.take(loaded, repository(loaded), say, incremental=incremental)
    say(taken.label)


@backup.command("logical")
def backup_logical(
    *,
    config: Config = DEFAULT,
    table: Annotated[
        list[str] | None, typer.Option(help="only this table, with its children; repeatable")
    ] = None,
    schema: Annotated[
        list[str] | None, typer.Option(help="only this schema, all of it; repeatable")
    ] = None,
    schema_only: Annotated[bool, typer.Option("--schema-only", help="no rows")] = False,
    role_passwords: Annotated[
        bool,
        typer.Option(
            "--role-passwords/--no-role-passwords",
            help="keep the hashes of roles' passwords, which a base backup has as well",
        ),
    ] = True,
) -> None:
    """Dump of the database in one snapshot, with a digest of each table; roles beside it."""
    loaded = configuration.load(config)
    taken = logical.take(
        loaded,
        repository(loaded),
        say,
        tables=table or (),
        schemas=schema or (),
        schema_only=schema_only,
        role_passwords=role_passwords,
    )
    say(taken.label)


@backup.command("topics")
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


@backup.command("offsets")
def backup_offsets(config: Config = DEFAULT) -> None:
    """Committed offsets of every consumer group, and which record each would read next."""
    loaded = configuration.load(config)
    say(groups.take(loaded, repository(loaded), say).label)
