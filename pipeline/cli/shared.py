"""What every command shares: the configuration option, where it speaks, which repository."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.config import PipelineConfig
from pipeline.repository import Repository
from pipeline.store import FolderStore

Config = Annotated[
    Path, typer.Option("--config", "-c", envvar="PIPELINE_CONFIG", help="pipeline.toml")
]
DEFAULT = Path("pipeline.toml")


def say(text: str) -> None:
    """Tell the person at the terminal."""
    typer.echo(text)


def repository(config: PipelineConfig) -> Repository:
    """Open the repository that the configuration names."""
    return Repository(FolderStore(config.repository.path))
