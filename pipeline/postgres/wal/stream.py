"""One pg_receivewal into the repository: its slot, its process, and what a killed one left."""

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psycopg

from pipeline.config import PipelineConfig
from pipeline.errors import BackupError, ServerError
from pipeline.postgres.server.orphans import end_orphans
from pipeline.postgres.server.orphans import orphans as running_in
from pipeline.postgres.server.session import environment
from pipeline.postgres.server.tools import Tools
from pipeline.postgres.wal.lsn import Lsn

PROGRAM = "pg_receivewal"
LOCK = "receiver.lock"
STREAM = "stream"


class Stream:
    """A running pg_receivewal; `ended` tells when it is no longer."""

    def __init__(self, process: "subprocess.Popen[bytes]", messages: IO[bytes]) -> None:
        self.process = process
        self._messages = messages

    def ended(self) -> str | None:
        """Say how it ended, with its own last words; None while it runs."""
        if (code := self.process.poll()) is None:
            return None
        self._messages.seek(0)
        words = self._messages.read().decode(errors="replace").strip().splitlines()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        told = " / ".join(line.removeprefix(f"{PROGRAM}: ") for line in words[-3:])
        return f"{PROGRAM} {how}" + (f": {told}" if told else "")


@contextmanager
def streaming(config: PipelineConfig, timeline: int, segment_size: int) -> Iterator[Stream]:
    """Stream into a folder for this timeline, from the slot's own position on."""
    postgres, tools = config.postgres, Tools.of(config.postgres)
    folder = config.repository.path / STREAM / f"{timeline:08X}"
    folder.mkdir(parents=True, exist_ok=True)
    tools.own(folder)
    _remove_unfilled(folder, segment_size)
    with tempfile.TemporaryFile() as messages:
        process = tools.popen(
            PROGRAM,
            *(f"--directory={folder}", f"--slot={config.repository.receiver_slot}"),
            *(f"--host={postgres.host}", f"--port={postgres.port}", f"--username={postgres.user}"),
            *("--no-password", "--synchronous", "--no-loop"),
            stdout=subprocess.DEVNULL,
            stderr=messages,
            env=environment(postgres),
            cwd=folder,
        )
        try:
            yield Stream(process, messages)
        finally:
            process.terminate()
            process.wait()


def _remove_unfilled(folder: Path, segment_size: int) -> None:
    """Remove what a full disk, or a kill, left of a new segment: no WAL is in it yet.

    pg_receivewal fills one with zeros before it writes to it, and refuses for ever what it finds
    half filled: "should be 0 or 16777216" (receivelog.c, open_walfile).
    """
    for part in folder.glob("*.partial"):
        if part.stat().st_size not in {0, segment_size}:
            part.unlink()


def prepare_slot(connection: psycopg.Connection[Any], name: str) -> None:
    """Make the slot, which keeps WAL from this moment on, or find it fit.

    Raises BackupError for a slot that no waiting makes fit, ServerError for one that another
    client reads: of a killed receiver's connection the server learns within wal_sender_timeout.
    """
    row = connection.execute(
        "select slot_type, wal_status, active_pid from pg_replication_slots where slot_name = %s",
        [name],
    ).fetchone()
    if row is None:
        connection.execute("select pg_create_physical_replication_slot(%s, true)", [name])
        return
    kind, wal_status, reader = row
    if kind != "physical":
        raise BackupError(
            f"slot {name!r} is {kind}, expected a physical one: repository.receiver_slot must "
            "name a slot that nothing but the receiver uses"
        )
    if wal_status == "lost":
        raise BackupError(
            f"slot {name!r} has lost WAL that was never received (max_slot_wal_keep_size). "
            "See by `pipeline reach` whether the archive has it, drop the slot, and take a base "
            "backup if not"
        )
    if reader is not None:
        raise ServerError(f"slot {name!r} is in use by another client, backend {reader}")


def received(connection: psycopg.Connection[Any], name: str) -> Lsn | None:
    """How far the server knows WAL to be on the receiver's disk; None before its first word."""
    row = connection.execute(
        "select restart_lsn::text from pg_replication_slots where slot_name = %s", [name]
    ).fetchone()
    return Lsn.parse(row[0]) if row and row[0] else None


@contextmanager
def only_receiver(repository: Path) -> Iterator[None]:
    """Hold the repository's receiver lock, and end what a killed receiver left running.

    Who holds it knows that a pg_receivewal that works in this repository has lost its supervisor:
    it would keep the slot busy, and nobody would notice its end. Raises BackupError while another
    receiver holds it.
    """
    try:
        descriptor = os.open(repository / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise BackupError(f"the receiver cannot write to its repository: {error}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(f"another receiver already streams into {repository}") from None
        end_orphans(repository / STREAM, PROGRAM)
        yield
    finally:
        os.close(descriptor)


def orphans(folder: Path) -> list[int]:
    """Process ids of every pg_receivewal that works below a folder."""
    return running_in(folder, PROGRAM)
