"""Whether a replication slot and a stored source offset still belong together.

Debezium's own checks compare LSNs. After a point-in-time recovery the same LSN names other
changes, so the history that an offset was taken on is asked first; whatever cannot be known
counts as foreign.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from pipeline.postgres.replication.slots import PLUGIN, Slot
from pipeline.postgres.wal.lsn import Lsn


@dataclass(frozen=True)
class History:
    """Which WAL an LSN counts in: a cluster, and a timeline of it."""

    system_identifier: str
    timeline: int


@dataclass(frozen=True)
class ServerPosition:
    """Where the server stands: its database, its history and the end of its WAL."""

    database: str
    history: History
    lsn: Lsn


@dataclass(frozen=True)
class StoredOffset:
    """How far Connect recorded events as delivered, and on which history if that was recorded."""

    lsn: Lsn
    history: History | None

    @classmethod
    def of(cls, offset: dict[str, Any], history: History | None) -> Self | None:
        """Read Debezium's offset; None when it is of an unfinished snapshot or names no LSN.

        What is delivered for certain is the last whole transaction, `lsn_commit`; `lsn` may point
        into the next one.
        """
        position = offset.get("lsn_commit") or offset.get("lsn_proc") or offset.get("lsn")
        if offset.get("snapshot") or not isinstance(position, int):
            return None
        return cls(Lsn(position), history)


class Pair(StrEnum):
    """What a slot and an offset are to each other."""

    SOUND = "sound"
    NO_OFFSET = "no offset"
    NO_SLOT = "no slot"
    SLOT_LOST = "slot lost"
    SLOT_FOREIGN = "slot of another database or plugin"
    SLOT_AHEAD = "slot ahead of the offset"
    OFFSET_AHEAD = "offset ahead of the server"
    OTHER_TIMELINE = "offset of another timeline"
    OTHER_CLUSTER = "offset of another cluster"
    UNKNOWN_HISTORY = "offset of an unknown history"

    @property
    def resumable(self) -> bool:
        """Whether streaming may go on from the offset; every other pair needs a re-snapshot."""
        return self is Pair.SOUND


def classify_pair(slot: Slot | None, offset: StoredOffset | None, server: ServerPosition) -> Pair:
    """Name the first thing that is wrong, the widest first; SOUND only if everything is known."""
    if offset is None:
        return Pair.NO_OFFSET
    return _foreign_history(offset, server) or _slot_trouble(slot, offset, server) or Pair.SOUND


def _foreign_history(offset: StoredOffset, server: ServerPosition) -> Pair | None:
    if offset.history is None:
        return Pair.UNKNOWN_HISTORY
    if offset.history.system_identifier != server.history.system_identifier:
        return Pair.OTHER_CLUSTER
    if offset.history.timeline != server.history.timeline:
        return Pair.OTHER_TIMELINE
    return Pair.OFFSET_AHEAD if offset.lsn > server.lsn else None


def _slot_trouble(slot: Slot | None, offset: StoredOffset, server: ServerPosition) -> Pair | None:
    if slot is None:
        return Pair.NO_SLOT
    if (slot.database, slot.plugin) != (server.database, PLUGIN):
        return Pair.SLOT_FOREIGN
    if slot.lost or slot.confirmed_flush_lsn is None:
        return Pair.SLOT_LOST
    if slot.confirmed_flush_lsn > offset.lsn:
        # from 15 on PostgreSQL starts at the slot's position without an error: what lies between
        # is never sent (protocol-replication, START_REPLICATION)
        return Pair.SLOT_AHEAD
    return None
