"""What `pipeline` can be asked for, as manifests ask it."""

from collections.abc import Iterator
from typing import Any

import typer

from pipeline.cli import app


def commands(
    one: Any = None,  # noqa: ANN401 - click's
    words: tuple[str, ...] = (),
) -> Iterator[tuple[str, ...]]:
    """Give every command by its words, as ("backup", "base")."""
    here = one or typer.main.get_command(app)
    below = getattr(here, "commands", {})
    for name in below:
        yield from commands(below[name], (*words, name))
    if not below or getattr(here, "invoke_without_command", False):
        yield words
