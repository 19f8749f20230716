"""The changes of a stretch, decoded on a side server that replays the archive step by step.

A logical slot is made on a standby (PostgreSQL 16), and replay is halted at each running-xacts
record until the slot was read to there and confirmed: replay removes catalogue rows that nobody
needed on the primary, and invalidates a slot that still does.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from pipeline.config import PostgresConfig
from pipeline.errors import RestoreError
from pipeline.postgres.redecode.feed import Feed
from pipeline.postgres.redecode.pgoutput import Decoder, Event, Message
from pipeline.postgres.redecode.stretch import COUNTED, Stretch, TooYoung
from pipeline.postgres.redecode.walsender import Creating, Reading
from pipeline.postgres.replay.asking import Connect
from pipeline.postgres.replay.replay import private_server
from pipeline.postgres.replication.publications import find_publication
from pipeline.postgres.replication.slots import find_slot
from pipeline.postgres.server import session
from pipeline.postgres.server.isolation import SIGNALS, required
from pipeline.postgres.server.server import LocalServer
from pipeline.postgres.wal.lsn import Lsn, as_record_end
from pipeline.postgres.wal.segments import MergedWal
from pipeline.wait import wait_until

SLOT = "pipeline_redecode"
STALLED = timedelta(seconds=60)
_EVER = timedelta(days=7)
_WALSENDERS = 4  # one decodes; its place is free again only when the server noticed its end
_PRUNED = "conflicted with xid horizon"
_SETTINGS = {
    "hot_standby": "on",
    "wal_level": "logical",
    "max_slot_wal_keep_size": "-1",
    "wal_sender_timeout": "0",  # whoever takes the changes may be slow
    "fsync": "off",
    "full_page_writes": "off",
}


class CataloguesPruned(RestoreError):
    """Rows of the catalogues that decoding needs were removed on the primary, with its consent."""


@dataclass
class Decoding:
    """One stretch on one side server, whose folder holds a base backup that nobody started yet."""

    server: LocalServer
    postgres: PostgresConfig
    publication: str
    wal: MergedWal
    stretch: Stretch
    work: Path
    progress: Callable[[str], None]

    def events(self) -> Iterator[Event]:
        """Give the changes of each transaction in the order of commits, and then its end.

        A transaction without an end is none: RestoreError came instead of it. Nothing of more than
        one change is held here, whatever a transaction holds.
        """
        feed = Feed(self.work, self.wal, self.server.tools, self.stretch.base)
        feed.give_history(self.server.data)
        self._as_standby()
        settings = self._settings() | {"restore_command": feed.restore_command}
        with (
            private_server(
                self.server,
                user=self.postgres.user,
                port=self.postgres.port,
                dbname=self.postgres.dbname,
                settings=settings,
            ) as connect,
            closing(_Side(self.server, connect, feed, self.publication)) as side,
        ):
            side.replay(self.stretch.before, self.wal.segment_size)
            self.progress(f"  replayed to {self.stretch.before}, making a slot there")
            begins = side.make_slot(self.stretch)
            self.progress(f"  decoding from {begins}, {len(self.stretch.steps)} steps")
            yield from self._stepped(side)

    def _stepped(self, side: "_Side") -> Iterator[Event]:
        for number, step in enumerate(self.stretch.steps, start=1):
            side.replay(step, self.wal.segment_size)
            for event in side.read(step):
                if self.stretch.holds(place(event)):
                    yield event
            self.progress(f"  decoded to {step}, step {number} of {len(self.stretch.steps)}")

    def _as_standby(self) -> None:
        standby, recovery = SIGNALS
        (self.server.data / recovery).unlink(missing_ok=True)
        (self.server.data / standby).touch()
        self.server.tools.own(self.server.data / standby)

    def _settings(self) -> dict[str, str]:
        known, later = required(self.server), self.stretch.settings
        given = {name: max(int(known[name]), later.get(name, 0)) for name in COUNTED}
        given["max_wal_senders"] = max(given["max_wal_senders"], _WALSENDERS)
        if int((self.server.data / "PG_VERSION").read_text()) >= 18:
            given["idle_replication_slot_timeout"] = 0
        return {
            **_SETTINGS,
            **{name: str(value) for name, value in given.items()},
            "recovery_target_timeline": str(self.wal.spans[-1].timeline),
            "shared_preload_libraries": ",".join(self.postgres.replay_libraries),
        }


def place(event: Event) -> Lsn:
    """Where its transaction's commit record starts, or the event itself where it has none."""
    if isinstance(event, Message) and event.transaction is None:
        return event.lsn
    transaction = event.transaction
    assert transaction is not None  # noqa: S101 - only such a message has none
    return transaction.lsn


class _Side:
    """The running side server: replays as far as it is told, and is read as far as it replayed."""

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
                for place, message in reading.messages(lsn, STALLED):
                    if (event := decoder.decode(message, place)) is not None:
                        yield event
                reading.confirm(lsn)
            self._refuse_lost(lsn)
        except (RestoreError, psycopg.Error) as error:
            raise self._explained(error) from error

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
