"""`pipeline`: back up, look, and recover. Every command takes the same pipeline.toml."""

import logging
import sys

import psycopg
import typer

from pipeline.cli import look
from pipeline.cli.backup import backup
from pipeline.cli.recover import recover
from pipeline.cli.restore import restore
from pipeline.cli.verify import verify
from pipeline.cli.wal import wal
from pipeline.errors import LossNotAccepted, PipelineError, RecoveryRefused

FAILED, INTERLOCK = 1, 10

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
app.add_typer(backup, name="backup")
app.add_typer(wal, name="wal")
app.command("list")(look.list_sets)
app.command("reach")(look.show_reach)
app.command("find")(look.find)
app.command("retain")(look.retain)
app.command("verify")(verify)
app.add_typer(recover, name="recover")
app.add_typer(restore, name="restore")


def main() -> None:
    """Run; an error of ours is one message and an exit code, never a traceback."""
    # a rollback that fails after the server has gone is no news: the error that follows tells it
    logging.getLogger("psycopg").addHandler(logging.NullHandler())
    try:
        app()
    except (RecoveryRefused, LossNotAccepted) as refusal:
        sys.stderr.write(f"refused: {refusal}\n")
        sys.exit(INTERLOCK)
    except (PipelineError, psycopg.Error) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(FAILED)
