"""`pipeline backup base|logical`: PostgreSQL, as files and as a dump."""

from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cli.shared import DEFAULT, Config, in_turn, say, to_write
from pipeline.postgres.base import base_backup
from pipeline.postgres.logical import logical


@in_turn
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
    digests: Annotated[
        bool,
        typer.Option(
            "--digests",
            help="read every table once more and keep its rows and digest as of an LSN, so that a "
            "restore can be held against them; waits for open transactions",
        ),
    ] = False,
) -> None:
    """Physical backup of the whole server, tablespaces included, hashed while it streams."""
    # only now: the drivers of Connect and Kafka take longer to import than all of PostgreSQL
    from pipeline.cli.along import take_along  # noqa: PLC0415 - see above

    loaded = configuration.load(config)
    kept = to_write(loaded)
    taken = base_backup.take(loaded, kept, say, incremental=incremental, digests=digests)
    take_along(loaded, kept)
    say(taken.label)


@in_turn
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
        to_write(loaded),
        say,
        tables=table or (),
        schemas=schema or (),
        schema_only=schema_only,
        role_passwords=role_passwords,
    )
    say(taken.label)
