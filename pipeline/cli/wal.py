"""`pipeline wal`: hand over WAL."""

import signal
import threading

import typer

from pipeline import config as configuration
from pipeline.cli.shared import DEFAULT, Config, say
from pipeline.postgres import receiver

wal = typer.Typer(no_args_is_help=True, help="Hand over WAL; archive_command uses pipeline-wal.")


@wal.command("receive")
def wal_receive(config: Config = DEFAULT) -> None:
    """Stream WAL as it is flushed, and write the expected end every second, until stopped."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    receiver.receive(configuration.load(config), stop, say)
