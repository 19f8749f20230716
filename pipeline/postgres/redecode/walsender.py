"""A logical slot made and read over the replication protocol (manual, 54.4), by libpq itself.

Nothing is confirmed but by our own word, so that a slot never runs ahead of its reader.
"""

import select
import struct
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import ExecStatus

from pipeline.errors import RestoreError
from pipeline.postgres.wal.lsn import Lsn

_POLL = 0.1  # seconds between two questions of how far the server is
_KEEPALIVE = struct.Struct("!cQqB")
_WAL_DATA = struct.Struct("!cQQq")
_STATUS = struct.Struct("!cQQQqB")
_CREATE = sql.SQL("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput (SNAPSHOT 'nothing')")
_START = sql.SQL("START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', {})")
_SKIPPED = "skipped loading publication"
Connection = psycopg.Connection[Any]


class Creating:
    """A slot that is being made: that blocks until replay has passed what it begins at.

    By SQL it would hold a snapshot, for which replay waits while the slot waits for replay.
    """

    def __init__(self, connection: Connection, slot: str) -> None:
        self._pgconn = connection.pgconn
        self._pgconn.nonblocking = 0
        self._pgconn.send_query(_CREATE.format(sql.Identifier(slot)).as_bytes(connection))
        self._point: Lsn | None = None

    def point(self) -> Lsn | None:
        """Where the slot begins, or None while nobody knows; RestoreError where it failed."""
        if self._point is not None:
            return self._point
        self._pgconn.consume_input()
        if self._pgconn.is_busy():
            return None
        result = self._pgconn.get_result()
        if result is None or result.status != ExecStatus.TUPLES_OK:
            raise RestoreError(f"no slot could be made: {_told(self._pgconn.error_message)}")
        self._point = Lsn.parse((result.get_value(0, 1) or b"").decode())
        while self._pgconn.get_result() is not None:
            pass
        return self._point


class Reading:
    """One START_REPLICATION of a slot, read up to a position and then confirmed."""

    def __init__(self, connection: Connection, slot: str, publication: str) -> None:
        self._pgconn, self._seen, self._skipped = connection.pgconn, Lsn(0), list[str]()
        connection.add_notice_handler(self._notice)
        self._pgconn.nonblocking = 0
        options = sql.SQL("publication_names {}, messages 'true'").format(
            sql.Literal('"{}"'.format(publication.replace('"', '""')))
        )
        command = _START.format(sql.Identifier(slot), options).as_bytes(connection)
        if (begun := self._pgconn.exec_(command)).status != ExecStatus.COPY_BOTH:
            raise RestoreError(f"the slot cannot be read: {_told(begun.error_message)}")

    def messages(self, until: Lsn, patience: timedelta) -> Iterator[tuple[Lsn, bytes]]:
        """Give every message of the plugin, and its place, until all before `until` is decoded.

        RestoreError when the server ends, or neither sends nor decodes anything for `patience`.
        """
        moved = time.monotonic()
        while self._seen < until:
            size, data = self._pgconn.get_copy_data(1)
            if size == -1:
                raise RestoreError(f"the stream ended at {self._seen}: {self._ended()}")
            if size == 0:
                if time.monotonic() - moved > patience.total_seconds():
                    raise RestoreError(
                        f"nothing was decoded for {patience} at {self._seen}, before {until}"
                    )
                self._ask()
                continue
            message, seen = bytes(data), self._seen
            if message[:1] == b"k":
                self._seen = Lsn(max(seen, _KEEPALIVE.unpack(message)[1]))
                moved = time.monotonic() if self._seen > seen else moved
            elif message[:1] == b"w":
                moved = time.monotonic()
                self._refuse_skipped()
                yield Lsn(_WAL_DATA.unpack_from(message)[1]), message[_WAL_DATA.size :]
            else:
                raise RestoreError(f"replication protocol: a message of kind {message[:1]!r}")
        self._refuse_skipped()

    def confirm(self, lsn: Lsn) -> None:
        """Have the server forget what is before `lsn`, and end this reading in order."""
        self._tell(lsn, asking=False)
        self._pgconn.put_copy_end()
        while (size := self._pgconn.get_copy_data(0)[0]) != -1:
            if size == 0:
                raise RestoreError("replication protocol: the end of a stream did not come")
        if told := self._ended():
            raise RestoreError(f"the stream up to {lsn} did not end well: {told}")

    def _ask(self) -> None:
        """Ask how far the server is, and wait a moment for whatever comes."""
        self._tell(Lsn(0), asking=True)
        select.select([self._pgconn.socket], [], [], _POLL)
        self._pgconn.consume_input()

    def _tell(self, flushed: Lsn, *, asking: bool) -> None:
        # the clock is for monitoring; a position of zero confirms nothing
        self._pgconn.put_copy_data(_STATUS.pack(b"r", flushed, flushed, flushed, 0, asking))
        self._pgconn.flush()

    def _ended(self) -> str:
        """Take what the server says after a stream; empty where all was well."""
        told = list[str]()
        while (result := self._pgconn.get_result()) is not None:
            if result.status == ExecStatus.FATAL_ERROR:
                told.append(_told(result.error_message))
        return " ".join(told)

    def _notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        if _SKIPPED in (diagnostic.message_primary or ""):
            self._skipped.append(diagnostic.message_primary or "")

    def _refuse_skipped(self) -> None:
        if self._skipped:
            raise RestoreError(
                f"{self._skipped[0]}: it did not exist when rows were changed, so changes are "
                "left out without a word. The stretch that is behind its creation can be decoded"
            )


def _told(message: bytes | str) -> str:
    text = message.decode(errors="replace") if isinstance(message, bytes) else message
    return " ".join(text.split())
