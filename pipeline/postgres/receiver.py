"""The supervised streaming receiver: WAL as it is flushed, and the expected end once a second.

archive_command hands over whole segments; what the server wrote since is lost with it. A receiver
with its own slot keeps that too, and knows how far the server had come.
"""

import json
import os
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from pipeline.config import PipelineConfig
from pipeline.errors import BackupError, ObjectMissing, ServerError
from pipeline.postgres.lsn import Lsn, as_record_end
from pipeline.postgres.tools import Tools, password_environment
from pipeline.wait import wait_until

EXPECTED_END = "expected-end.json"
PERIOD = 1.0  # seconds between two expected ends


@dataclass(frozen=True)
class ExpectedEnd:
    """How far a server had flushed its WAL, and when: what "latest" must reach.

    `lsn` is the end of a record. The flushed position itself may lie inside one, of which a killed
    server leaves only a part, and a recovery would seem to fall short of it.
    """

    system_identifier: str
    timeline: int
    lsn: Lsn
    time: datetime

    def write(self, repository: Path) -> None:
        """Replace the file as one step, durably."""
        target = repository / EXPECTED_END
        unfinished = target.with_suffix(".unfinished")
        with unfinished.open("w") as stream:
            json.dump(self._facts(), stream)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(target)

    def _facts(self) -> dict[str, Any]:
        return {
            "system_identifier": self.system_identifier,
            "timeline": self.timeline,
            "lsn": str(self.lsn),
            "time": self.time.isoformat(),
        }

    @classmethod
    def read(cls, repository: Path) -> "ExpectedEnd":
        """Read it back; ObjectMissing when no receiver ever wrote one."""
        try:
            facts = json.loads((repository / EXPECTED_END).read_text())
            return cls(
                system_identifier=facts["system_identifier"],
                timeline=facts["timeline"],
                lsn=Lsn.parse(facts["lsn"]),
                time=datetime.fromisoformat(facts["time"]),
            )
        except FileNotFoundError:
            raise ObjectMissing(EXPECTED_END, str(repository)) from None
        except (ValueError, KeyError, TypeError) as error:
            raise BackupError(f"{repository / EXPECTED_END} cannot be read: {error}") from error


def receive(
    config: PipelineConfig, stop: threading.Event, progress: Callable[[str], None] = lambda _: None
) -> None:
    """Receive until `stop` is set; a lost server is waited for, a foreign one is an error.

    Raises BackupError when the server at this address is another one, or is behind what this
    repository has already seen of the same timeline: both would falsify the expected end.
    """
    while not stop.is_set():
        try:
            _receive_once(config, stop, progress)
        except (psycopg.OperationalError, ServerError) as error:
            progress(f"receiver: {str(error).strip().splitlines()[0]}; waiting for the server")
            stop.wait(PERIOD)


def _receive_once(
    config: PipelineConfig, stop: threading.Event, progress: Callable[[str], None]
) -> None:
    repository = config.repository.path
    with psycopg.connect(**config.postgres.conninfo(), autocommit=True) as connection:
        end = _flushed_record(connection)
        _refuse_foreign(end, repository)
        process = _start(config, end.timeline)
        progress(f"receiver: streaming timeline {end.timeline} from {end.lsn}")
        try:
            while not stop.wait(PERIOD):
                if (code := process.poll()) is not None:
                    raise ServerError(f"pg_receivewal ended with exit code {code}")
                _flushed_record(connection).write(repository)
        finally:
            process.terminate()
            process.wait()


def _start(config: PipelineConfig, timeline: int) -> "subprocess.Popen[bytes]":
    """Start pg_receivewal into a folder for this timeline, from the slot's own position."""
    postgres, tools = config.postgres, Tools.of(config.postgres)
    folder = config.repository.path / "stream" / f"{timeline:08X}"
    folder.mkdir(parents=True, exist_ok=True)
    tools.own(folder)
    common = (
        *(f"--directory={folder}", f"--slot={config.repository.receiver_slot}", "--no-password"),
        *(f"--host={postgres.host}", f"--port={postgres.port}", f"--username={postgres.user}"),
    )
    environment = password_environment(postgres)
    tools.run("pg_receivewal", *common, "--create-slot", "--if-not-exists", env=environment)
    return tools.popen(
        "pg_receivewal",
        *common,
        *("--synchronous", "--no-loop"),
        stdout=subprocess.DEVNULL,
        stderr=None,  # its words belong to the supervisor's own log
        env=environment,
        cwd=folder,
    )


def _flushed_record(connection: psycopg.Connection[Any]) -> ExpectedEnd:
    """Ask for the end of the newest record, and wait until that is flushed."""
    row = connection.execute(
        """
        select (pg_control_system()).system_identifier::text,
               ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int,
               pg_current_wal_insert_lsn()::text, now(),
               pg_size_bytes(current_setting('wal_segment_size'))
        """
    ).fetchone()
    if row is None:
        raise ServerError("the server did not answer its WAL position")
    end = as_record_end(Lsn.parse(row[2]), row[4])

    def flushed() -> str | None:
        # the WAL writer flushes what no commit waits for (wal_writer_delay, 200 ms by default)
        found = connection.execute("select pg_current_wal_flush_lsn()::text").fetchone()
        return None if found and Lsn.parse(found[0]) >= end else f"flushed to {found}"

    wait_until(f"flush of {end}", flushed, within=timedelta(seconds=30))
    return ExpectedEnd(row[0], row[1], end, row[3].astimezone(UTC))


def _refuse_foreign(found: ExpectedEnd, repository: Path) -> None:
    try:
        known = ExpectedEnd.read(repository)
    except ObjectMissing:
        return
    if found.system_identifier != known.system_identifier:
        raise BackupError(
            f"{repository} belongs to the server with system identifier "
            f"{known.system_identifier}, this one is {found.system_identifier}"
        )
    if (found.timeline, found.lsn) < (known.timeline, known.lsn):
        raise BackupError(
            f"the server is at {found.lsn} of timeline {found.timeline}, but this repository has "
            f"seen {known.lsn} of timeline {known.timeline}: it lost WAL, or it is an old copy"
        )
