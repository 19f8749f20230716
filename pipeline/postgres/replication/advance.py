"""A slot is moved forward: only where nothing published is skipped by that.

What lies between is decoded first, from a copy of the slot, so that a refusal can say how much its
reader would have lost. A server reads on from where a slot stands and tells nobody of the gap.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

from pipeline.errors import RecoveryRefused, ServerError
from pipeline.postgres.replication.publications import as_list, find_publication
from pipeline.postgres.replication.slots import Slot, find_slot, temporary_copy
from pipeline.postgres.wal.lsn import Lsn

# a transaction is skipped if its commit record begins before the position: bytes 2 to 9 of a commit
# message (manual, 54.9); the whole of one that ends later is decoded as well, and is not counted
_SKIPPED = """
    WITH changes AS (
        SELECT xid::text::bigint AS xid, chr(get_byte(data, 0)) AS kind, data
          FROM pg_logical_slot_peek_binary_changes(%(copy)s, %(until)s::pg_lsn, NULL,
               'proto_version', '1', 'publication_names', %(publication)s)
    ), skipped AS (
        SELECT xid FROM changes
         WHERE kind = 'C' AND ('x' || encode(substring(data FROM 3 FOR 8), 'hex'))::bit(64)::bigint
               < ('x' || %(hex)s)::bit(64)::bigint
    )
    SELECT count(DISTINCT xid), count(*) FROM changes
     WHERE kind IN ('I', 'U', 'D', 'T') AND xid IN (SELECT xid FROM skipped)
"""


@dataclass(frozen=True)
class Stretch:
    """What is published between a slot's position and another one."""

    begin: Lsn
    end: Lsn
    transactions: int
    changes: int

    def __str__(self) -> str:
        return (
            f"{self.changes:,} published changes of {self.transactions:,} transactions in "
            f"{self.end - self.begin:,} bytes of WAL, {self.begin} to {self.end}"
        )


def stretch(connection: psycopg.Connection[Any], slot: Slot, publication: str, to: Lsn) -> Stretch:
    """Count what a slot still holds of a publication up to a position; nothing is moved."""
    if slot.confirmed_flush_lsn is None or slot.lost:
        raise ServerError(f"slot {slot.name!r} cannot be read: {slot.lost}")
    if find_publication(connection, publication) is None:  # PostgreSQL 18 would decode nothing
        raise ServerError(f"publication {publication!r} does not exist: nothing can be counted")
    asked = {"until": str(to), "hex": f"{int(to):016x}", "publication": as_list(publication)}
    with temporary_copy(connection, slot.name) as copy:
        row = connection.execute(_SKIPPED, asked | {"copy": copy}).fetchone() or (0, 0)
    return Stretch(slot.confirmed_flush_lsn, to, *row)


def obstacles(
    connection: psycopg.Connection[Any], name: str, publication: str, to: Lsn
) -> Iterator[str]:
    """Say what stands in the way of moving a slot there."""
    if (slot := find_slot(connection, name)) is None:
        yield f"there is no slot {name!r}"
    elif slot.active:
        yield f"slot {name!r} is active: stop its connector"
    elif slot.lost or slot.confirmed_flush_lsn is None:
        yield f"slot {name!r} is lost, {slot.lost}: no position brings it back"
    elif to < slot.confirmed_flush_lsn:
        yield f"slot {name!r} stands at {slot.confirmed_flush_lsn}: it does not go back to {to}"
    elif to > (end := flushed(connection)):
        yield f"the server's WAL ends at {end}, before {to}: everything that waits would be skipped"
    elif (skipped := stretch(connection, slot, publication, to)).changes:
        yield f"slot {name!r} would skip {skipped}"


def advance(connection: psycopg.Connection[Any], name: str, publication: str, to: Lsn) -> Slot:
    """Move a slot that nobody reads, and read back where it stands.

    Raises RecoveryRefused, and nothing was moved, where its reader would miss anything.
    """
    if told := list(obstacles(connection, name, publication, to)):
        raise RecoveryRefused(f"not advanced: {'; '.join(told)}")
    connection.execute("SELECT pg_replication_slot_advance(%s, %s)", [name, str(to)])
    moved = find_slot(connection, name)
    if moved is None or moved.lost or moved.confirmed_flush_lsn != to:
        raise ServerError(f"slot {name!r} was advanced to {to}, and is now {moved}")
    return moved


def flushed(connection: psycopg.Connection[Any]) -> Lsn:
    """Where the server's WAL ends on its disk."""
    row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
    if row is None:
        raise ServerError("PostgreSQL did not say where its WAL ends")
    return Lsn.parse(row[0])
