"""Which events a snapshot of the tables sees, while clients and the connector go on.

An event belongs to a snapshot if its transaction is visible in it, and what was delivered before
the snapshot was taken belongs to it whatever its history: a server that was recovered gives numbers
of transactions out again. A transaction that waits for a synchronous standby is delivered before it
is visible, and a row that the connector reads tells of no transaction at all: of such an event,
where it came about the time of the snapshot, it cannot be said on which side it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from pipeline.cdc.last_states import Side
from pipeline.cdc.topics import Ends

READ = "r"
_EPOCH = 1 << 32


@dataclass(frozen=True)
class Snapshot:
    """What pg_current_snapshot() tells: all below `least`; up to `end`, what was not `running`."""

    least: int
    end: int
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Self:
        least, end, running = text.split(":")
        return cls(int(least), int(end), frozenset(map(int, filter(None, running.split(",")))))

    def __contains__(self, xid: int) -> bool:
        """Whether a transaction is visible; an event has the last 32 bits of its number."""
        whole = self.end - (self.end - xid) % _EPOCH
        if self.end - whole > _EPOCH // 2:
            whole += _EPOCH
        return whole < self.least or (whole < self.end and whole not in self.running)


@dataclass(frozen=True)
class Fence:
    """A snapshot of the tables, between the topics as they were before and a later snapshot."""

    ends: Mapping[str, Ends]
    """Where the topics ended before the snapshot was taken."""
    seen: Snapshot
    lsn: int
    """Not below the commits that the snapshot sees."""
    later: Snapshot
    """When all of these had been delivered."""

    def side(self, place: tuple[str, int, int], op: str, lsn: int | None, xid: int | None) -> Side:
        """Say on which side an event is that lies at a topic's partition and offset."""
        topic, partition, offset = place
        if offset < self.ends.get(topic, {}).get(partition, 0):
            hidden = op != READ and xid is not None and xid not in self.seen and xid in self.later
            waited = hidden and lsn is not None and lsn <= self.lsn
            return Side.EITHER if waited else Side.BEFORE
        if op == READ or xid is None:
            return Side.EITHER
        return Side.BEFORE if xid in self.seen else Side.AFTER
