"""`pipeline init`: a folder becomes a repository."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cli.shared import DEFAULT, Config, say
from pipeline.repository import marker


def init(
    *,
    config: Config = DEFAULT,
    server: Annotated[
        str | None,
        typer.Option(help="archive the WAL of this system identifier, in place of another one"),
    ] = None,
) -> None:
    """Make the configured path a repository, once its volume is mounted.

    Backups and WAL are refused by a place without its marker: what is written below the mount point
    of a volume that is not mounted would be in no repository. What is there already stays.
    """
    path = str(configuration.load(config).repository.path.absolute())
    Path(path).mkdir(0o750, parents=True, exist_ok=True)  # its backups hold every row
    made = marker.make(path)
    if server is not None:
        marker.replace_server(path, server)
    say(f"{path} is {'now' if made else 'already'} a repository")
