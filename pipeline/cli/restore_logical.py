"""`pipeline restore database|schema|globals`: what a logical backup holds."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cli.shared import DEFAULT, Config, repository, say
from pipeline.config import PipelineConfig, PostgresConfig
from pipeline.errors import ConfigError
from pipeline.postgres.logical import globals as server_globals
from pipeline.postgres.logical import logical
from pipeline.postgres.logical.locales import make_database
from pipeline.postgres.server.control import origin_of_server
from pipeline.postgres.server.session import connect
from pipeline.repository.kinds import LATEST, chosen
from pipeline.repository.sets import BackupSet

From = Annotated[str, typer.Option("--from", help="label of a logical backup, or latest")]
Into = Annotated[str, typer.Option("--into", help="the database: empty, or made by --create")]
Create = Annotated[bool, typer.Option("--create", help="make the database first")]
Server = Annotated[
    Path | None,
    typer.Option(
        help="another pipeline.toml, whose postgres section names the server to restore into"
    ),
]


def restore_database(
    *,
    config: Config = DEFAULT,
    label: From = LATEST,
    into: Into,
    create: Create = False,
    schema: Annotated[
        str | None, typer.Option(help="only what is in this schema, with its rows")
    ] = None,
    server: Server = None,
) -> None:
    """Bring a whole dump back into an empty database, and prove it.

    Every object of the backup's list must be there, every table must have its digest, sequences
    must go on after their tables, owners, grants and definitions must be those that the backup
    noted, and amcheck must find indexes and tables sound. The dump is compared with its own digest
    before the server sees it.
    """
    _restore(config, label, into, server, create=create, rows=True, schema=schema)


def restore_schema(
    *,
    config: Config = DEFAULT,
    label: From = LATEST,
    into: Into,
    create: Create = False,
    server: Server = None,
) -> None:
    """Bring the definitions of a dump back into an empty database, without rows."""
    _restore(config, label, into, server, create=create, rows=False)


def restore_globals(
    *,
    config: Config = DEFAULT,
    label: From = LATEST,
    server: Server = None,
    create_missing: Annotated[
        bool, typer.Option("--create-missing", help="make roles that are not there")
    ] = False,
    alter: Annotated[
        bool, typer.Option("--alter", help="and give those that are there what the backup says")
    ] = False,
) -> None:
    """Say which roles, memberships and tablespaces differ; make them only when told to.

    Passwords are compared and never shown. A tablespace needs a folder, and is only named.
    """
    loaded = configuration.load(config)
    backup = _backup(loaded, label)
    target = _server(loaded.postgres, server)
    if alter and not create_missing:
        raise ConfigError("--alter goes with --create-missing")
    if create_missing:
        found = server_globals.apply(backup, target, alter=alter)
    else:
        found = server_globals.compare(backup, target)
    for line in found.lines():
        say(line)
    say(f"{backup.label}: {len(found.missing)} missing, {len(found.other)} other")


def _restore(
    config: Path,
    label: str,
    into: str,
    server: Path | None,
    *,
    create: bool,
    rows: bool,
    schema: str | None = None,
) -> None:
    loaded = configuration.load(config)
    backup = _backup(loaded, label)
    target = _server(loaded.postgres, server)
    if create:
        with connect(target, autocommit=True) as connection:
            make_database(connection, into, backup)
    try:
        place = target.model_copy(update={"dbname": into})
        proof = logical.restore(backup, place, rows=rows, schema=schema)
    except BaseException:
        if create:
            say(f"database {into} was made by this command and is left for you to look at")
        raise
    for line in proof.lines():
        say(line)
    say(f"{backup.label} is restored into {into}")


def _backup(loaded: PipelineConfig, label: str) -> BackupSet:
    """Give the set of that label; the newest is that of the database which is backed up."""
    source = partial(origin_of_server, loaded.postgres)
    return chosen(
        repository(loaded), logical.KIND, label, origin=source if label == LATEST else dict, say=say
    )


def _server(postgres: PostgresConfig, server: Path | None) -> PostgresConfig:
    return postgres if server is None else configuration.load(server).postgres
