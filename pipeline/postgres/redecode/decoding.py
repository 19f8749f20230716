"""The changes of a stretch, decoded on a side server that replays the archive step by step.

A logical slot is made on a standby (PostgreSQL 16), and replay is halted at each running-xacts
record until the slot was read to there and confirmed: replay removes catalogue rows that nobody
needed on the primary, and invalidates a slot that still does.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import PostgresConfig
from pipeline.postgres.redecode.feed import Feed
from pipeline.postgres.redecode.pgoutput import Event, Message
from pipeline.postgres.redecode.standby import Standby
from pipeline.postgres.redecode.stretch import COUNTED, Stretch
from pipeline.postgres.replay.replay import private_server
from pipeline.postgres.server.isolation import SIGNALS, required
from pipeline.postgres.server.server import LocalServer
from pipeline.postgres.wal.lsn import Lsn
from pipeline.postgres.wal.segments import MergedWal

_WALSENDERS = 4  # one decodes; its place is free again only when the server noticed its end
_SETTINGS = {
    "hot_standby": "on",
    "wal_level": "logical",
    "max_slot_wal_keep_size": "-1",
    "wal_sender_timeout": "0",  # whoever takes the changes may be slow
    "fsync": "off",
    "full_page_writes": "off",
}


@dataclass(frozen=True)
class Door:
    """Where one role comes in over TCP, by its password, and nobody else."""

    address: str
    port: int
    user: str

    def rules(self, dbname: str) -> str:
        """Give the pg_hba.conf that lets it in; `md5` is SCRAM where the password is kept so."""
        database, user = (f'"{name}"'.replace('"', '""')[1:-1] for name in (dbname, self.user))
        return f"local all all trust\nhost {database} {user} all md5\n"


@dataclass
class Decoding:
    """One stretch on one side server, whose folder holds a base backup that nobody started yet.

    Through the `door` somebody else may read the slot.
    """

    server: LocalServer
    postgres: PostgresConfig
    publication: str
    wal: MergedWal
    stretch: Stretch
    work: Path
    progress: Callable[[str], None]
    door: Door | None = None

    def events(self) -> Iterator[Event]:
        """Give the changes of each transaction in the order of commits, and then its end.

        A transaction without an end is none: RestoreError came instead of it. Nothing of more than
        one change is held here, whatever a transaction holds.
        """
        with self._standing() as side:
            for step in self._halts(side):
                for event in side.read(step):
                    if self.stretch.holds(place(event)):
                        yield event

    def steps(self) -> Generator[Lsn]:
        """Halt where all before each position can be read by who comes through the door.

        What is left unread when the next one is asked for is passed over.
        """
        with self._standing() as side:
            for step in self._halts(side):
                yield step
                side.wait_free()
                for _ in side.read(step):
                    pass

    @contextmanager
    def _standing(self) -> Iterator[Standby]:
        """Run the server, with a slot that has begun."""
        feed = Feed(self.work, self.wal, self.server, self.stretch.base)
        feed.give_history(self.server.data)
        self._as_standby()
        settings = self._settings() | {"restore_command": feed.restore_command}
        with (
            private_server(
                self.server,
                user=self.postgres.user,
                port=self.door.port if self.door else self.postgres.port,
                dbname=self.postgres.dbname,
                settings=settings | self._opened(),
            ) as connect,
            closing(Standby(self.server, connect, feed, self.publication)) as side,
        ):
            side.replay(self.stretch.before, self.wal.segment_size)
            self.progress(f"  replayed to {self.stretch.before}, making a slot there")
            begins = side.make_slot(self.stretch)
            self.progress(f"  decoding from {begins}, {len(self.stretch.steps)} steps")
            yield side

    def _halts(self, side: Standby) -> Iterator[Lsn]:
        for number, step in enumerate(self.stretch.steps, start=1):
            side.replay(step, self.wal.segment_size)
            yield step
            self.progress(f"  decoded to {step}, step {number} of {len(self.stretch.steps)}")

    def _opened(self) -> dict[str, str]:
        if self.door is None:
            return {}
        rules = self.server.data.parent / "pg_hba.conf"
        rules.write_text(self.door.rules(self.postgres.dbname))
        self.server.tools.own(rules)
        return {"hba_file": str(rules), "listen_addresses": self.door.address}

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
