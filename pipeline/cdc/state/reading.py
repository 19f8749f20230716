"""The whole state of CDC at one moment, as a backup keeps it and as it is classified.

A slot, the offset that Connect stores and the end of the topics are one state in three places. They
are read in the order that makes them consistent: slots, then offsets, then where the server's WAL
ends. Connect stores an offset before it confirms, so the slot is never ahead of an offset that was
read behind it, unless something is wrong.

What could not be read is named, never left out in silence. JSON both ways; a reader passes over
what a later version added.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import AwareDatetime, Field, PlainSerializer, PlainValidator

from pipeline.cdc.state.connect import Connector, Worker
from pipeline.cdc.state.parts import Part, Position, Read
from pipeline.postgres.replication.publications import Publication
from pipeline.postgres.replication.slots import Slot


class Unread(Read):
    """Something that could not be read; `name` where it is one of several of its part."""

    part: Part
    why: str
    name: str | None = None
    grant: str | None = None
    """What must be granted, where a missing right is the reason."""

    @property
    def reason(self) -> str:
        """Why, and what would have to be granted; the same for several parts of one cause."""
        return self.why + (f"; grant it: {self.grant}" if self.grant else "")

    def __str__(self) -> str:
        return f"{self.part}{f' of {self.name}' if self.name else ''}: {self.reason}"


class Server(Read):
    """The source: which history it writes, where that ends, and what it lets go of."""

    system_identifier: str
    timeline: int
    version: int
    """As server_version_num tells it: 170004."""
    database: str
    databases: tuple[str, ...] = ()
    in_recovery: bool = False
    wal_level: str = "logical"
    flush_lsn: Position
    """Where its WAL ended once slots and offsets were read: what a standby has replayed."""
    segment_bytes: int = 16 << 20
    limit: int | None = None
    """max_slot_wal_keep_size in bytes; None where the server keeps everything."""
    guards: tuple[str, ...] = ()
    """synchronized_standby_slots: failover slots wait for these."""

    @property
    def history(self) -> tuple[str, int]:
        return self.system_identifier, self.timeline


@dataclass(frozen=True)
class SeenSlot(Slot):
    """Any slot of the server, physical ones too, with who reads it."""

    slot_type: str = "logical"
    temporary: bool = False
    active_pid: int | None = None
    reader: str | None = None
    """application_name of who reads it, and from where."""
    safe_wal_size: int | None = None
    """Bytes that may still be written before its WAL is let go of; None without a limit."""
    inactive_since: str | None = None
    slotsync_skip_reason: str | None = None

    @property
    def pending(self) -> bool:
        """Whether its creation still waits for open transactions to end."""
        return self.slot_type == "logical" and self.confirmed_flush_lsn is None and self.active


SlotRow = Annotated[
    SeenSlot,
    PlainValidator(lambda told: told if isinstance(told, SeenSlot) else SeenSlot.of(told)),
    PlainSerializer(lambda slot: slot.facts()),
]


class PublishedTable(Read):
    """A table whose changes are published, and whether the server can name its rows."""

    name: str
    identity: str
    """pg_class.relreplident: d key, i index, f all columns, n nothing."""
    usable: bool
    """Whether updates and deletes pass: a key or an index behind it that the server takes."""


class DatabasePublication(Read):
    """A publication with its database, in which alone its name is unique."""

    database: str
    publication: Publication
    tables: tuple[PublishedTable, ...] = ()


class ServiceTable(Read):
    """A table that a connector itself needs: for heartbeats, signals, or as an outbox."""

    connector: str
    use: str
    table: str
    present: bool
    published: bool = False
    lacks: tuple[str, ...] = ()
    """Privileges that the connector's role would need."""
    role: str | None = None


class Prepared(Read):
    """A transaction that waits for its coordinator, and holds WAL back meanwhile."""

    gid: str
    database: str
    since: str


class SubscriptionRead(Read):
    """A subscription of the server, which takes changes from another."""

    database: str
    name: str
    enabled: bool


class TopicRead(Read):
    """A topic: which one of that name it is, where it ends, and how it is cleaned."""

    name: str
    topic_id: str
    policy: str
    ends: dict[int, int]

    @property
    def records(self) -> int:
        return sum(self.ends.values())


class Asked(Read):
    """What the configuration expects, and a reading cannot see by itself."""

    slot: str = ""
    connectors: tuple[str, ...] = ()
    receiver_slot: str = ""
    internal_topics: tuple[str, ...] = ()


class Reading(Read):
    """Everything that was read, and what could not be."""

    taken: AwareDatetime
    asked: Asked = Asked()
    server: Server | None = None
    slots: tuple[SlotRow, ...] = ()
    publications: tuple[DatabasePublication, ...] = ()
    tables: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Names of all tables, by database: what is not published any more may have been dropped."""
    service_tables: tuple[ServiceTable, ...] = ()
    prepared: tuple[Prepared, ...] = ()
    subscriptions: tuple[SubscriptionRead, ...] = ()
    worker: Worker | None = None
    connectors: tuple[Connector, ...] = ()
    absent: tuple[Connector, ...] = ()
    """Connectors that an earlier set knows, as it knew them, and Connect has no more."""
    others: tuple[str, ...] = ()
    """Connectors of something else than a PostgreSQL, by name."""
    topics: tuple[TopicRead, ...] = ()
    internal_topics: tuple[TopicRead, ...] = ()
    unread: tuple[Unread, ...] = ()

    def misses(self, parts: Iterable[Part], names: Collection[str] = ()) -> list[Unread]:
        """What of these parts was not read, for all of them or for one of `names`."""
        wanted = set(parts)
        return [
            one
            for one in self.unread
            if one.part in wanted and (one.name is None or one.name in names)
        ]

    def slot(self, name: str) -> SeenSlot | None:
        return next((slot for slot in self.slots if slot.name == name), None)

    def connector(self, name: str) -> Connector | None:
        return next((each for each in self.connectors if each.name == name), None)

    def known(self, name: str) -> Connector | None:
        """The connector of that name as it is, else as it was last seen."""
        return next((e for e in (*self.connectors, *self.absent) if e.name == name), None)

    def publication(self, database: str, name: str) -> DatabasePublication | None:
        found = (
            p for p in self.publications if (p.database, p.publication.name) == (database, name)
        )
        return next(found, None)

    def topic(self, name: str) -> TopicRead | None:
        return next((topic for topic in self.topics if topic.name == name), None)
