"""What commands share: options and how they are read, where they speak, which repository."""

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec, cast

import typer

from pipeline import config as configuration
from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError
from pipeline.postgres.wal.lsn import Lsn
from pipeline.repository import marker
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from pipeline.repository.turns import turn

P = ParamSpec("P")
Config = Annotated[
    Path, typer.Option("--config", "-c", envvar="PIPELINE_CONFIG", help="pipeline.toml")
]
DEFAULT = Path("pipeline.toml")
AcceptEnd = Annotated[
    str | None, typer.Option(help="accept that it ends at this LSN, as a refusal named it")
]
Without = Annotated[
    list[str] | None,
    typer.Option(help="pass over this base backup, and what builds on it; again for each"),
]

Origin = Annotated[
    str | None,
    typer.Option(help="id of the cluster or server that the named set is of, where it is another"),
]


WithoutTopic = Annotated[
    list[str] | None,
    typer.Option(
        help="a topic that is not compared with its table, nor buried in; repeatable. On --resume "
        "the names said then replace the earlier ones"
    ),
]


def say(text: str) -> None:
    """Tell the person at the terminal."""
    typer.echo(text)


def repository(config: PipelineConfig) -> Repository:
    """Open the repository that the configuration names."""
    return Repository(FolderStore(config.repository.path))


def to_write(config: PipelineConfig) -> Repository:
    """Open the repository for what is backed up; a place that nobody made one is refused."""
    path = str(config.repository.path.absolute())
    if why := marker.refusal(path):
        raise ConfigError(why)
    if marker.make(path):
        say(f"{path} is of an earlier version, and is marked as a repository now")
    return repository(config)


def in_turn(command: Callable[P, None]) -> Callable[P, None]:
    """Have a command wait until no other one writes to its repository, or removes sets from it."""

    @wraps(command)
    def in_its_turn(*args: P.args, **kwargs: P.kwargs) -> None:
        loaded = configuration.load(cast("Path", kwargs["config"]))
        to_write(loaded)
        with turn(str(loaded.repository.path.absolute())):
            command(*args, **kwargs)

    return in_its_turn


def reread_noted(names: Iterable[str]) -> str:
    """Spell the backup by which it is known that these connectors read every row anew.

    Without it their offsets count as those of the history that the recovery left.
    """
    return " ".join(["pipeline backup cdc", *(f"--reread {name}" for name in names)])


def accepted_end(text: str | None) -> Lsn | None:
    """Read what was said with --accept-end."""
    try:
        return Lsn.parse(text) if text else None
    except ValueError as error:
        raise ConfigError(f"--accept-end: {error}") from error


def need_zone(option: str, moment: datetime | None) -> None:
    """Refuse a moment that does not say its zone: nobody knows which hour is meant."""
    if moment is not None and moment.tzinfo is None:
        raise ConfigError(f"{option} needs its offset from UTC")
