"""`pipeline`: back up, look, and recover. Every command takes the same pipeline.toml."""

import logging
import sys
from typing import Annotated

import typer

from pipeline.cli import endings
from pipeline.cli.lazy import Home, group
from pipeline.cli.version import version
from pipeline.errors import LossNotAccepted, PipelineError, RecoveryRefused, without_logins
from pipeline.wait import telling

FAILED, INTERLOCK = 1, 10

_LOOK = "pipeline.cli.look"


def _tell_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it
    if wanted:
        typer.echo(f"pipeline {version()}")
        raise typer.Exit


def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_tell_version, help="say which one it is"
        ),
    ] = False,
) -> None:
    """Take what may stand before a command."""


app = group(
    __doc__,
    {
        "init": Home(
            "pipeline.cli.init",
            "init",
            "Make the configured path a repository, once its volume is mounted.",
        ),
        "backup": Home(
            "pipeline.cli.backup", "backup", "Take a backup now; what is committed is whole."
        ),
        "wal": Home("pipeline.cli.wal", "wal", "Hand over WAL, and bring it back."),
        "list": Home(_LOOK, "list_sets", "List the backup sets, oldest first."),
        "reach": Home(
            _LOOK,
            "show_reach",
            "Say which moments each base backup leads to, and what is missing; restores nothing.",
        ),
        "find": Home(
            _LOOK,
            "find",
            "List the transactions that dropped, truncated or changed much of a table.",
        ),
        "status": Home(
            "pipeline.cli.status",
            "status",
            "Say what state things are in, and what mends them; changes nothing.",
        ),
        "retain": Home(
            "pipeline.cli.retain",
            "retain",
            "Say what the backup plan lets go and why; with --yes, remove it.",
        ),
        "verify": Home(
            "pipeline.cli.verify",
            "verify",
            "Compare every object of the repository with its digest; restores nothing.",
        ),
        "recover": Home(
            "pipeline.cli.recover",
            "recover",
            "Bring the pipeline back into service, step by step, resumable.",
        ),
        "restore": Home(
            "pipeline.cli.restore", "restore", "Bring data back; each restore ends with proof."
        ),
    },
    _options,
)


def _of_postgres(error: Exception) -> bool:
    """Whether the driver raised it: then it was imported."""
    psycopg = sys.modules.get("psycopg")
    return psycopg is not None and isinstance(error, psycopg.Error)


def main() -> None:
    """Run; whatever goes wrong is one message and an exit code, never a traceback.

    Messages of ours tell what to do. What we did not expect keeps its traceback in a file.
    """
    # a rollback that fails after the server has gone is no news: the error that follows tells it
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
    endings.end_in_order_on_sigterm()
    try:
        with telling(endings.say):
            app()
    except SystemExit as ended:
        endings.tell_interrupt(ended)
        raise
    except (RecoveryRefused, LossNotAccepted) as refusal:
        sys.stderr.write(without_logins(f"refused: {refusal}\n"))
        sys.exit(INTERLOCK)
    except Exception as error:  # noqa: BLE001 - it ends here, and its traceback is kept
        if isinstance(error, PipelineError):
            told = without_logins(str(error))
        elif _of_postgres(error):
            told = " ".join(str(error).split())
        else:
            told = f"{endings.one_line(error)}; {endings.keep_traceback(error)}"
        sys.stderr.write(f"error: {told}\n")
        sys.exit(FAILED)
