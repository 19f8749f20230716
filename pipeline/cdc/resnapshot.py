"""Change data capture after a point-in-time recovery, before clients are let in.

The order, with the restore of the database between the first step and the second:

1. `stop_connectors`: STOPPED, not paused, so that no task holds the slot or writes an offset
2. `prepare_source`: the publication, then the slot
3. `topic_ends` (pipeline.cdc.reconcile), then `resnapshot`: offsets deleted, every row read again
4. `reconcile`: ghosts are buried, nothing may be missing

Whoever was interrupted after the first begins with it again: a connector that an earlier attempt
resumed holds the slot. From there each step may be repeated, however far it came.

The stored offsets are always deleted, never compared: the recovery began a new timeline, on which
the same LSNs name other changes. They can come back: a task that did not stop in time is abandoned
by its worker, and stores its last offsets whenever it ends (Connect's WorkerSourceTask commits
even when it was cancelled; its exactly-once twin does not). An offset of before the deletion is
therefore deleted again, until the one that is stored is of the re-read.

Clients stay out until the end. Debezium 3.7 takes a slot that it finds as it is, but with no offset
it streams from where the WAL ends when the snapshot begins, not from the slot's position: of what
was written in between only the last state arrives, and a deletion not at all.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from pipeline.cdc.connectors import ConnectClient, ConnectorOffset
from pipeline.errors import ServerError
from pipeline.postgres.replication.publications import Connection, Publication, recreate
from pipeline.postgres.replication.slots import Slot, create_slot, drop_slot, find_slot
from pipeline.rest import POLL
from pipeline.wait import wait_until

SERVER_CLOCK = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
"""Microseconds, as Debezium's `ts_usec` gives the time of a commit, by the same clock."""
REREAD = {"snapshot.mode": "initial"}
RETRIES = 4
RELEASES = timedelta(seconds=10)
"""How long a server may still show the reader of a connector that has stopped."""
TAKES_EFFECT = timedelta(seconds=5)
"""How long the status may still tell of a failure after the restart."""


@dataclass(frozen=True)
class PreparedSource:
    """The new slot, and what had to be mended in the publication."""

    slot: Slot
    mended: list[str]


def stop_connectors(
    client: ConnectClient, names: Iterable[str], *, within: timedelta = timedelta(seconds=60)
) -> dict[str, list[ConnectorOffset]]:
    """Stop them, wait until no task is left, and return their last offsets for the record."""
    stopping = list(names)
    for name in stopping:
        client.stop(name)
    for name in stopping:
        client.wait_stopped(name, within=within)
    return {name: client.offsets(name) for name in stopping}


def prepare_source(
    connection: Connection,
    publication: Publication,
    slot: str,
    *,
    like: Slot | None = None,
    within: timedelta = RELEASES,
) -> PreparedSource:
    """Give the restored server the publication as it was, and a new slot after it, flagged `like`.

    A base backup carries no slots, so one that is here is left from an earlier attempt; nobody may
    be using it. The reader of a connector that has just stopped is waited for.
    """
    mended = recreate(connection, publication)
    if find_slot(connection, slot) is not None:

        def read() -> str | None:
            found = find_slot(connection, slot)
            if found is not None and found.active:
                return f"slot {slot!r} is active: stop its connector before it is made again"
            return None

        wait_until(f"slot {slot!r} to be free", read, within=within, every=POLL)
        drop_slot(connection, slot)
    flags = {flag: bool(like and getattr(like, flag)) for flag in ("failover", "two_phase")}
    return PreparedSource(create_slot(connection, slot, **flags), mended)


def resnapshot(
    client: ConnectClient,
    connection: Connection,
    name: str,
    slot: str,
    *,
    within: timedelta = timedelta(minutes=30),
) -> None:
    """Make a STOPPED connector read every row again, and return when it streams.

    `initial` and not `when_needed`: both read again without an offset, but the latter does so
    unasked as well whenever slot and offset do not fit, and hides a loss that way.
    """
    status = client.status(name)
    if status.state != "STOPPED" or status.tasks:
        raise ServerError(f"{client.url}: {name} must be STOPPED before its offsets go: {status}")
    client.put_config(name, client.config(name) | REREAD)
    tries = _Tries(client, connection, name)
    tries.begin()
    what = f"{client.url}: {name} re-read every row and streams"
    wait_until(
        what,
        lambda: tries.mend() or _unfinished(client, connection, name, slot),
        within=within,
        every=POLL,
    )


class _Tries:
    """Begin again what a task that outlived its stop has spoilt, a few times.

    Such a task can store its old offsets behind their deletion. And it can reach the restored
    server, find its slot gone, and report its own end under the number of the new task.
    """

    def __init__(self, client: ConnectClient, connection: Connection, name: str) -> None:
        self._client, self._connection, self._name = client, connection, name
        self._left, self._last, self._begun = RETRIES, 0.0, 0

    def begin(self) -> None:
        """Delete the offsets, and let the connector start without any."""
        row = self._connection.execute(SERVER_CLOCK).fetchone()
        self._begun = row[0] if row else 0
        self._client.delete_offsets(self._name)
        self._client.resume(self._name)

    def mend(self) -> str | None:
        """Say what had to be begun again, or None when nothing is wrong."""
        if old := [o.offset for o in self._client.offsets(self._name) if self._is_old(o)]:
            returned = f"offsets came back after their deletion: {old}"
            self._spend(returned)
            stop_connectors(self._client, [self._name])
            self.begin()
            return returned
        trouble = self._client.status(self._name).trouble
        if trouble is None or "FAILED" not in trouble:
            return None
        if time.monotonic() - self._last > TAKES_EFFECT.total_seconds():
            self._spend(trouble)
            self._last = time.monotonic()
            self._client.restart(self._name)
        return trouble

    def _is_old(self, stored: ConnectorOffset) -> bool:
        """Whether it names a commit of before the deletion; one of the re-read names none."""
        committed = stored.offset.get("ts_usec")
        return (
            not stored.offset.get("snapshot") and committed is not None and committed < self._begun
        )

    def _spend(self, trouble: str) -> None:
        if not self._left:
            raise ServerError(f"{self._client.url}: {self._name} fails for good: {trouble}")
        self._left -= 1


def _unfinished(client: ConnectClient, connection: Connection, name: str, slot: str) -> str | None:
    """Why the snapshot is not known to be in Kafka, or streaming has not begun.

    An active slot is not enough: it becomes active while snapshot records are still on their way.
    Connect stores an offset only when the brokers hold every record before it.
    """
    if trouble := client.status(name).trouble:
        return trouble
    offsets = client.offsets(name)
    if not offsets:
        return "no offset stored yet"
    if any(o.offset.get("snapshot") and not o.offset.get("snapshot_completed") for o in offsets):
        return f"snapshot in progress: {offsets[0].offset}"
    found = find_slot(connection, slot)
    return None if found is not None and found.active else f"slot {slot!r} is not active"
