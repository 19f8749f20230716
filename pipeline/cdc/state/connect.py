"""What a reading holds of Kafka Connect: connectors, their tasks and stored offsets, workers."""

from collections.abc import Iterable
from typing import Any

from pydantic import Field

from pipeline.cdc.debezium import DEFAULTS
from pipeline.cdc.state import stored
from pipeline.cdc.state.parts import Read
from pipeline.postgres.wal.lsn import Lsn

REFERENCE = "${"
"""Begins what the worker looks up elsewhere, by its configuration providers."""


class StoredOffset(Read):
    """What Connect stores for one source partition of a connector."""

    partition: dict[str, Any]
    offset: dict[str, Any]

    @property
    def lsn(self) -> Lsn | None:
        """What is delivered for certain; None of an unfinished snapshot, or without an LSN."""
        return None if self.snapshotting else stored.position(self.offset)

    @property
    def snapshotting(self) -> bool:
        return stored.snapshotting(self.offset)

    @property
    def textual(self) -> bool:
        return stored.textual(self.offset)


class Task(Read):
    """A task as its worker reports it."""

    id: int
    state: str
    cause: str = ""


class Connector(Read):
    """A connector of a PostgreSQL: its settings, what it does, and what is stored for it."""

    name: str
    own: bool
    """Whether it is this pipeline's; every other one is named, and left alone."""
    config: dict[str, str]
    """As Connect tells it. References are kept; a secret is masked."""
    digests: dict[str, str] = Field(default_factory=dict)
    """Of each masked value: whether a secret is another one, never what it is."""
    state: str = "UNKNOWN"
    tasks: tuple[Task, ...] = ()
    wanted: int = 1
    """Tasks that it asked for."""
    offsets: tuple[StoredOffset, ...] = ()
    topics: tuple[str, ...] = ()
    """Topics that it has written to, as Connect saw it."""
    history: tuple[str, int] | None = None
    """System identifier and timeline that its offset was stored on; None where nobody knows."""
    resolved: dict[str, str] = Field(default_factory=dict)
    """What [cdc] and [postgres] say where its settings leave a value to the worker (`${…}`)."""

    def told(self, setting: str) -> str:
        """One of its settings; the names of slot and publication have defaults of Debezium's."""
        told = self.config.get(setting, DEFAULTS.get(setting, ""))
        return self.resolved.get(setting, told)

    @property
    def slot(self) -> str:
        return self.told("slot.name")

    @property
    def publication(self) -> str:
        return self.told("publication.name")

    @property
    def database(self) -> str:
        return self.told("database.dbname")

    @property
    def place(self) -> tuple[str, str]:
        """Host and port as the worker knows them, which may be others than ours."""
        return self.told("database.hostname"), self.config.get("database.port", "5432")

    @property
    def mine(self) -> tuple[StoredOffset, ...]:
        """What is stored under its present topic prefix: Debezium looks for no other key."""
        prefix = self.told("topic.prefix")
        if REFERENCE in prefix and len(self.offsets) == 1:
            return self.offsets
        return tuple(one for one in self.offsets if one.partition.get("server") == prefix)

    @property
    def unsure(self) -> str | None:
        """Why nobody can tell which of the stored offsets is its own, or None."""
        prefix = self.config.get("topic.prefix", "")
        if REFERENCE not in prefix or self.mine or not self.offsets:
            return None
        known = f", [cdc] says {told!r}" if (told := self.resolved.get("topic.prefix")) else ""
        keys = " and ".join(repr(one.partition.get("server")) for one in self.offsets)
        return f"topic.prefix is {prefix}{known}, and offsets are stored for {keys}"

    def unresolved(self, settings: Iterable[str]) -> list[str]:
        """Which of these settings have a value that only the worker knows."""
        return [one for one in settings if REFERENCE in self.told(one)]

    @property
    def lsn(self) -> Lsn | None:
        """How far its events are known to be in the topics; None where no offset tells."""
        return next((one.lsn for one in self.mine if one.lsn is not None), None)

    @property
    def running(self) -> bool:
        whole = len(self.tasks) >= max(1, self.wanted)
        return self.state == "RUNNING" and whole and all(t.state == "RUNNING" for t in self.tasks)

    @property
    def routes_outbox(self) -> bool:
        return any("EventRouter" in value for value in self.config.values())


class Worker(Read):
    """The Connect cluster: its version, and those of Debezium's connector."""

    version: str
    cluster_id: str = ""
    plugins: dict[str, str] = Field(default_factory=dict)
    """Version by class, of connectors of a PostgreSQL."""
