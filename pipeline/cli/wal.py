"""`pipeline wal`: hand over WAL."""

import json
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cli.shared import DEFAULT, Config, say, to_write
from pipeline.errors import BackupError, ObjectMissing
from pipeline.postgres.wal import receiver, wal_command
from pipeline.postgres.wal.receiver_status import ReceiverStatus

LATE = 10.0  # seconds: a receiver speaks every second

wal = typer.Typer(no_args_is_help=True, help="Hand over WAL, and bring it back.")


@wal.command("push")
def wal_push(
    repository: Annotated[Path, typer.Argument(help="folder of the repository")],
    segment: Annotated[Path, typer.Argument(help="%p")],
) -> None:
    """Archive one segment: archive_command = 'pipeline wal push /backup/repository %p'.

    Answers 0 once it is durable, or was there already with the same content; other content is
    never replaced.
    """
    raise typer.Exit(wal_command.push(repository, segment))


@wal.command("get")
def wal_get(
    view: Annotated[Path, typer.Argument(help="a recovery's folder `wal`")],
    name: Annotated[str, typer.Argument(help="%f")],
    into: Annotated[Path, typer.Argument(help="%p")],
) -> None:
    """Bring one file back: restore_command = 'pipeline wal get /backup/recoveries/R/wal %f %p'.

    Answers 0 when it is whole in its place, 1 when there is no such file, which ends a recovery in
    order, and 200 when that could not be found out, which stops the server.
    """
    raise typer.Exit(wal_command.get(view, name, into))


@wal.command("receive")
def wal_receive(config: Config = DEFAULT) -> None:
    """Stream WAL as it is flushed, and write the expected end every second, until stopped."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    loaded = configuration.load(config)
    to_write(loaded)
    receiver.receive(loaded, stop, say)


@wal.command("status")
def wal_status(
    *,
    config: Config = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="one object")] = False,
) -> None:
    """Say what the receiver last said of itself; fails when that is old, or when nothing flows."""
    path = configuration.load(config).repository.path
    try:
        found = ReceiverStatus.read(path)
    except ObjectMissing:
        raise BackupError(
            f"no receiver has ever streamed into {path}: pipeline wal receive. Without one, what "
            "the server has written since its last full segment is lost with it"
        ) from None
    age = found.age().total_seconds()
    if as_json:
        say(json.dumps(found.facts() | {"age": age}))
    elif not found.reason:
        say(f"timeline {found.timeline}: received {found.received}, {found.behind:,} bytes behind")
    if found.reason or age > LATE:
        told = found.reason or f"process {found.pid} has said nothing since"
        raise BackupError(f"the receiver does not stream: {told} ({age:.0f} s ago)")
