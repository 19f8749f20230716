"""Logical replication slots: what the server promises to keep for a consumer."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Self

import psycopg
from psycopg import sql

from pipeline.errors import ServerError
from pipeline.postgres.wal.lsn import Lsn

PLUGIN = "pgoutput"
Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Slot:
    """A row of pg_replication_slots, with the names of PostgreSQL 18.

    A field that the server's version does not have is None: `invalidation_reason` since 17,
    `failover` and `synced` since 17, `conflicting` since 16.
    """

    name: str
    plugin: str
    database: str
    active: bool
    restart_lsn: Lsn | None
    confirmed_flush_lsn: Lsn | None
    wal_status: str | None
    invalidation_reason: str | None = None
    conflicting: bool | None = None
    failover: bool | None = None
    synced: bool | None = None
    two_phase: bool | None = None

    @property
    def lost(self) -> str | None:
        """Why the slot can no longer deliver every change since its position, or None."""
        if self.invalidation_reason:
            return f"invalidated: {self.invalidation_reason}"
        if self.conflicting:
            return "invalidated: it conflicted with recovery"
        if self.wal_status == "lost" or self.restart_lsn is None:
            return f"its WAL is gone (wal_status {self.wal_status}, restart_lsn {self.restart_lsn})"
        return None

    def facts(self) -> dict[str, Any]:
        """JSON-able, for a manifest; `of` reads it back."""
        return {
            name: str(value) if isinstance(value, Lsn) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Self:
        """Read facts, or a row of the view as JSON; keys that mean nothing here are passed over."""
        row: dict[str, Any] = {**facts, "name": facts.get("name", facts.get("slot_name"))}
        for lsn in ("restart_lsn", "confirmed_flush_lsn"):
            row[lsn] = Lsn.parse(row[lsn]) if row.get(lsn) else None
        known: dict[str, Any] = {name: row.get(name) for name in cls.__dataclass_fields__}
        return cls(**known)


def logical_slots(connection: Connection) -> list[Slot]:
    """Every logical slot of the server, by name."""
    # to_jsonb: the view's columns differ between 15 and 18, and a missing one must not be an error
    rows = connection.execute(
        "SELECT to_jsonb(s) FROM pg_replication_slots s WHERE slot_type = 'logical'"
        " ORDER BY slot_name"
    )
    return [Slot.of(row) for (row,) in rows]


def find_slot(connection: Connection, name: str) -> Slot | None:
    """The logical slot of that name, or None when the server has none."""
    return next((slot for slot in logical_slots(connection) if slot.name == name), None)


def unread(connection: Connection, name: str) -> str | None:
    """Say that nobody reads the slot, as a condition to wait for; None once somebody does."""
    slot = find_slot(connection, name)
    return None if slot and slot.active else "the slot has no reader"


def create_slot(
    connection: Connection, name: str, *, failover: bool = False, two_phase: bool = False
) -> Slot:
    """Create it in the connection's database; what commits from now on is kept for it.

    The publication must stand already: pgoutput looks it up as of the change that it decodes, and
    a slot that begins before its publication fails at the first one.
    """
    arguments: list[sql.Composable] = [sql.Literal(name), sql.Literal(PLUGIN)]
    if two_phase:
        arguments.append(sql.SQL("twophase => true"))
    if failover:  # PostgreSQL 17; left out otherwise, so that 15 and 16 understand the call
        arguments.append(sql.SQL("failover => true"))
    call = sql.SQL("SELECT pg_create_logical_replication_slot({})")
    _call(connection, name, call.format(sql.SQL(", ").join(arguments)))
    return _present(connection, name)


def drop_slot(connection: Connection, name: str) -> None:
    """Drop a slot that nobody uses; an active one is refused, its consumer must stop first."""
    slot = _present(connection, name)
    if slot.active:
        raise ServerError(
            f"slot {name!r} on {_where(connection)} is active: stop its connector before dropping"
        )
    _call(connection, name, sql.SQL("SELECT pg_drop_replication_slot({})").format(name))


@contextmanager
def temporary_copy(connection: Connection, name: str) -> Iterator[str]:
    """Copy a slot, to look at what it holds: that writes no WAL, and ends with the connection."""
    copy = f"pipeline_look_{connection.info.backend_pid}"
    connection.execute(
        "SELECT pg_copy_logical_replication_slot(%s, %s, temporary => true)", [name, copy]
    )
    try:
        yield copy
    finally:
        connection.execute("SELECT pg_drop_replication_slot(%s)", [copy])


def behind(connection: Connection, name: str, lsn: Lsn) -> str | None:
    """Why the slot's consumer has not confirmed `lsn` yet, or None: a condition of wait_until.

    Take `lsn` right after a commit in a published table. Debezium confirms at commits only, so on
    an idle server an LSN that was read later may lie beyond the last one, and is never reached.
    None proves delivery only to a consumer whose offset is of this history: one with a foreign
    offset confirms commits that it dropped as already seen.
    """
    slot = find_slot(connection, name)
    if slot is None:
        return f"slot {name!r} does not exist"
    if slot.lost:
        raise ServerError(f"slot {name!r} on {_where(connection)} is {slot.lost}")
    if slot.confirmed_flush_lsn is None or slot.confirmed_flush_lsn < lsn:
        return f"slot {name!r} confirmed {slot.confirmed_flush_lsn}, behind {lsn}"
    return None


def _present(connection: Connection, name: str) -> Slot:
    if (slot := find_slot(connection, name)) is None:
        raise ServerError(f"{_where(connection)} has no logical slot {name!r}")
    return slot


def _call(connection: Connection, name: str, call: sql.Composed) -> None:
    try:
        connection.execute(call)
    except psycopg.Error as error:
        raise ServerError(f"slot {name!r} on {_where(connection)}: {error}") from error


def _where(connection: Connection) -> str:
    info = connection.info
    return f"{info.host}:{info.port}/{info.dbname}"
