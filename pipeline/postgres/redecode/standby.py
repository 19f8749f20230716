"""A running standby that replays as far as it is told, and whose slot is read to there."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import psycopg

from pipeline.config import PostgresConfig
from pipeline.errors import RestoreError
from pipeline.postgres.redecode.feed import Feed
from pipeline.postgres.redecode.pgoutput import Decoder, Event
from pipeline.postgres.redecode.stretch import Stretch, TooYoung
from pipeline.postgres.redecode.walsender import Creating, Reading
from pipeline.postgres.replay.asking import STALLED, Connect
from pipeline.postgres.replication.publications import find_publication
from pipeline.postgres.replication.slots import find_slot
from pipeline.postgres.server import session
from pipeline.postgres.server.server import LocalServer
from pipeline.postgres.wal.lsn import Lsn, as_record_end
from pipeline.wait import wait_until

SLOT = "pipeline_redecode"
DECODING = timedelta(minutes=10)
"""How long a walsender may say nothing: of a transaction that is not published it has no words."""
_EVER = timedelta(days=7)
_PRUNED = "conflicted with xid horizon"


class CataloguesPruned(RestoreError):
    """Rows of the catalogues that decoding needs were removed on the primary, with its consent."""


class Standby:
    """It stands where its feed was cut; nothing is read there before all of it is replayed."""

    def __init__(self, server: LocalServer, connect: Connect, feed: Feed, publication: str) -> None:
        self._server, self._connect, self._feed = server, connect, feed
        self._publication, self._log = publication, server.log.stat().st_size
        self._asking: psycopg.Connection[Any] | None = None

    def replay(self, lsn: Lsn, segment_size: int) -> None:
        """Hand over the WAL before `lsn`, and return when all of it is replayed."""
        stands = as_record_end(lsn, segment_size)

        def reached() -> str | None:
            return None if (at := self._replayed()) >= stands else f"replayed to {at}"

        self._feed.up_to(lsn, lambda full: self._moving(f"room before {lsn}", full))
        self._moving(f"replay to {lsn}", reached)

    def make_slot(self, stretch: Stretch) -> Lsn:
        """Make a slot that has begun when `consistent` is replayed, and prove where it begins."""
        with closing(self._walsender()) as connection:
            creating = Creating(connection, SLOT)
            self._moving("a walsender", self._creating)
            self._feed.up_to(stretch.consistent, lambda full: self._moving("room", full))

            def begun() -> str | None:
                try:
                    return None if creating.point() else f"no slot at {self._replayed()}"
                except RestoreError as error:
                    raise self._explained(error) from error

            self._moving(f"a slot that begins by {stretch.consistent}", begun)
            begins = creating.point()
        if begins is None or begins > stretch.start:
            raise TooYoung(f"the slot begins at {begins}, the stretch already at {stretch.start}")
        self._refuse_without_publication(begins)
        return begins

    def read(self, lsn: Lsn) -> Iterator[Event]:
        """Give all that was decoded before `lsn`, and confirm it once it was taken."""
        try:
            with closing(self._walsender()) as connection:
                reading, decoder = Reading(connection, SLOT, self._publication), Decoder()
                for place, message in reading.messages(lsn, DECODING):
                    if (event := decoder.decode(message, place)) is not None:
                        yield event
                reading.confirm(lsn)
            self._refuse_lost(lsn)
        except (RestoreError, psycopg.Error) as error:
            raise self._explained(error) from error

    def wait_free(self) -> None:
        """Return once nobody reads the slot any more: a server notices late that a reader left."""

        def read() -> str | None:
            slot = find_slot(self._sql(), SLOT)
            return "somebody reads it" if slot is not None and slot.active else None

        wait_until(f"slot {SLOT} of the side server to be free", read, within=STALLED)

    def _walsender(self) -> psycopg.Connection[Any]:
        info = self._sql().info
        place = PostgresConfig(host=info.host, port=info.port, dbname=info.dbname, user=info.user)
        return session.connect(
            place, autocommit=True, settings={"TimeZone": "UTC"}, replication="database"
        )

    def _sql(self) -> psycopg.Connection[Any]:
        if self._asking is None or self._asking.closed:
            self._asking = self._connect()
        return self._asking

    def close(self) -> None:
        if self._asking is not None:
            self._asking.close()

    def _replayed(self) -> Lsn:
        row = self._sql().execute("select pg_last_wal_replay_lsn()::text").fetchone()
        return Lsn.parse(row[0]) if row and row[0] else Lsn(0)

    def _creating(self) -> str | None:
        slot = find_slot(self._sql(), SLOT)
        return None if slot and slot.restart_lsn else "the slot has no position yet"

    def _moving(self, what: str, condition: Callable[[], str | None]) -> None:
        """Wait for as long as replay moves; RestoreError when the server stands or has ended."""
        at, since = Lsn(0), time.monotonic()

        def met() -> str | None:
            nonlocal at, since
            if self._server.pid() is None:
                raise RestoreError(f"the side server gave up:\n{self._server.told(self._log)}")
            try:
                if (reason := condition()) is None:
                    return None
                now = self._replayed()
            except psycopg.OperationalError as error:
                reason, now = str(error).strip(), at
            if now != at:
                at, since = now, time.monotonic()
            elif time.monotonic() - since > STALLED.total_seconds():
                raise RestoreError(
                    f"no {what} within {STALLED}: {reason}\n{self._server.told(self._log)}\n"
                    f"its log: {self._server.log}"
                )
            return reason

        wait_until(what, met, within=_EVER, log=self._server.log)

    def _refuse_without_publication(self, begins: Lsn) -> None:
        if find_publication(self._sql(), self._publication) is None:
            raise RestoreError(
                f"publication {self._publication!r} did not exist at {begins}, where decoding "
                "begins: nothing would be sent, and that would look like an empty stretch"
            )

    def _refuse_lost(self, lsn: Lsn) -> None:
        slot = find_slot(self._sql(), SLOT)
        why = "it is gone" if slot is None else slot.lost
        if slot is None or why:
            raise RestoreError(f"the slot of the side server: {why}")
        if slot.confirmed_flush_lsn is None or slot.confirmed_flush_lsn < lsn:
            raise RestoreError(
                f"the slot of the side server: expected {lsn} confirmed, "
                f"found {slot.confirmed_flush_lsn}"
            )

    def _explained(self, error: Exception) -> RestoreError:
        """Tell what a broken stream means, by the server's own log."""
        if self._server.pid() is None:
            return RestoreError(f"the side server ended: {error}")
        told = self._server.told(self._log, lines=1000)
        if _PRUNED in told:
            return CataloguesPruned(
                "rows of the catalogues that decoding needs were removed by VACUUM on the primary "
                "while no logical slot and no catalogue guard held them (rows_removed). What was "
                "changed in this stretch cannot be decoded from here: re-read the tables by a "
                f"snapshot. The server's words: {error}"
            )
        if isinstance(error, RestoreError):
            return error
        return RestoreError(f"the side server broke off: {' '.join(str(error).split())}")
