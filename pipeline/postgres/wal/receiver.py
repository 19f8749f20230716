"""The supervised streaming receiver: WAL as it is flushed, and the expected end once a second.

archive_command hands over whole segments; what the server wrote since is lost with it. A receiver
with its own slot keeps that too, and knows how far the server had come.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from pipeline.config import PipelineConfig
from pipeline.errors import BackupError, ObjectMissing, ServerError
from pipeline.postgres.server.session import connect_at_once
from pipeline.postgres.wal.lsn import Lsn, as_record_end
from pipeline.postgres.wal.receiver_status import ReceiverStatus
from pipeline.postgres.wal.stream import (
    only_receiver,
    prepare_slot,
    received,
    streaming,
)
from pipeline.repository import marker
from pipeline.wait import wait_until

EXPECTED_END = "expected-end.json"
PERIOD = 1.0  # seconds between two expected ends
NO_WORD = "the server had come is unknown: no receiver wrote an expected end"
LONGEST_PAUSE = 30.0  # seconds between two attempts


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

    def silent_on(self, timeline: int) -> str:
        """Say that it knows nothing of a newer timeline than its own; empty when it does know.

        What lay behind the branch was let go by the recovery that began the newer one, and what
        was written since, the receiver has not seen.
        """
        if self.timeline >= timeline:
            return ""
        return (
            f"the server of timeline {timeline} had come is unknown: the expected end is of "
            f"timeline {self.timeline}"
        )

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
    """Receive until `stop` is set; what can heal by itself is waited for, and said.

    Raises BackupError when the server at this address is another one, or is behind what this
    repository has already seen of the same timeline, both of which would falsify the expected end;
    when the slot cannot be used, or another receiver streams into this repository.
    """
    with only_receiver(config.repository.path):
        _Receiver(config, stop, progress).run()


class _Receiver:
    """The supervisor: starts the stream again, after longer and longer pauses, until told."""

    def __init__(
        self, config: PipelineConfig, stop: threading.Event, progress: Callable[[str], None]
    ) -> None:
        self._config, self._stop, self._progress = config, stop, progress
        self._repository, self._slot = config.repository.path, config.repository.receiver_slot
        self._restarts = 0
        self._pause = PERIOD

    def run(self) -> None:
        while not self._stop.is_set():
            try:
                self._stream()
            except (psycopg.OperationalError, ServerError, OSError) as error:
                reason = str(error).strip().splitlines()[0]
                self._progress(
                    f"receiver: {reason}; waiting for the server, next try in {self._pause:g} s"
                )
                self._wait(reason)
                self._restarts += 1
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
            except BackupError as error:
                self._say(str(error))
                raise

    def _wait(self, reason: str) -> None:
        """Pause, and go on to tell how far the server comes meanwhile: that much may be lost."""
        until = time.monotonic() + self._pause
        while True:
            end = None
            with contextlib.suppress(psycopg.OperationalError, ServerError, OSError):
                with self._connect() as connection:
                    end, _ = flushed_record(connection)
                _refuse_foreign(end, self._repository)
                end.write(self._repository)
            self._say(reason, end)
            left = until - time.monotonic()
            if left <= 0 or self._stop.wait(min(left, PERIOD)):
                return

    def _connect(self) -> psycopg.Connection[Any]:
        return connect_at_once(self._config.postgres, autocommit=True)

    def _stream(self) -> None:
        with self._connect() as connection:
            end, size = flushed_record(connection)
            _refuse_foreign(end, self._repository)
            prepare_slot(connection, self._slot)
            with streaming(self._config, end.timeline, size) as stream:
                self._say("", end, received(connection, self._slot))
                self._progress(f"receiver: streaming timeline {end.timeline} from {end.lsn}")
                while not self._stop.wait(PERIOD):
                    if ended := stream.ended():
                        raise ServerError(ended)
                    end, _ = flushed_record(connection)
                    end.write(self._repository)
                    self._say("", end, received(connection, self._slot))
                    self._pause = PERIOD  # it has come to a second of work

    def _say(
        self, reason: str, end: ExpectedEnd | None = None, received: Lsn | None = None
    ) -> None:
        """Write the status; where it cannot be written its age tells as much."""
        status = ReceiverStatus(
            time=datetime.now(UTC),
            pid=os.getpid(),
            reason=reason,
            restarts=self._restarts,
            timeline=end.timeline if end else None,
            received=received,
            written=end.lsn if end else None,
        )
        with contextlib.suppress(OSError):
            status.write(self._repository)


def flushed_record(connection: psycopg.Connection[Any]) -> tuple[ExpectedEnd, int]:
    """Ask for the end of the newest record, wait until that is flushed; and a segment's bytes."""
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
    return ExpectedEnd(row[0], row[1], end, row[3].astimezone(UTC)), row[4]


def _refuse_foreign(found: ExpectedEnd, repository: Path) -> None:
    if why := marker.of_another(str(repository), found.system_identifier):
        raise BackupError(why)
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
