"""The point at which topics and database are archived together: a snapshot, and an LSN behind it.

An event belongs to the point if its transaction is visible in the snapshot. Topics may end once the
slot's consumer has confirmed the LSN.

The consumer of an idle source confirms nothing, while the server's own records move the LSN on. So
what lies between is decoded (pipeline.cdc.delivered): where no published change does, what is
confirmed is an LSN not below the events' commits as well. Where one does, Connect may have stored
that it was sent. Nothing is written to the source.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg

from pipeline.cdc.delivered import Unconfirmed, unconfirmed
from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError, ServerError
from pipeline.postgres.replication.slots import find_slot
from pipeline.postgres.server.session import connect
from pipeline.postgres.wal.lsn import Lsn
from pipeline.wait import wait_until

WITHIN = timedelta(seconds=90)
"""Longer than a worker's offset.flush.interval.ms, 60 s by default: slots are confirmed at that."""
EVERY = timedelta(milliseconds=200)
UNKNOWN = "UNKNOWN"

# the LSN is read after the snapshot: what the snapshot sees has committed, so lies before it
_POINT = """
    SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text, now()::text,
           (pg_control_system()).system_identifier::text,
           (pg_control_checkpoint()).timeline_id
"""

_FLUSHED = """
    SELECT pg_current_wal_flush_lsn()::text, setting::int FROM pg_settings
    WHERE name = 'wal_writer_delay'
"""


def reach(
    config: PipelineConfig,
    progress: Callable[[str], None],
    *,
    within: timedelta = WITHIN,
    seen_by: psycopg.Connection[Any] | None = None,
) -> dict[str, Any]:
    """Take a point, wait until its events have been delivered, and tell both as JSON.

    Where somebody reads tables by a snapshot of his own, the point is what `seen_by` sees.

    `point` is None with a `reason` where PostgreSQL does not answer. `caught_up` is True, or
    UNKNOWN with a `reason`. `idle_until` is told where the point's LSN is what the consumer has
    confirmed: no published change lies between the two. `stored_until` is told where Connect's
    offset, and not the slot, shows that all up to the point's LSN was delivered.
    """
    try:
        with connect(config.postgres, autocommit=True) as connection:
            return _reach(connection, config, progress, within, seen_by or connection)
    except (psycopg.Error, ConfigError) as error:
        reason = f"PostgreSQL does not answer: {str(error).strip()}"
        progress(f"no consistency point: {reason}")
        return {"point": None, "reason": reason}


def _reach(
    connection: psycopg.Connection[Any],
    config: PipelineConfig,
    progress: Callable[[str], None],
    within: timedelta,
    seen_by: psycopg.Connection[Any],
) -> dict[str, Any]:
    slot = config.cdc.slot
    row = seen_by.execute(_POINT).fetchone() or ()
    taken = time.monotonic()
    names = ("snapshot", "lsn", "time", "system_identifier", "timeline")
    point = dict(zip(names, row, strict=True))
    told: dict[str, Any] = {"point": point, "slot": slot, "caught_up": True}
    lsn = Lsn.parse(point["lsn"])
    looked: Lsn | None = None
    confirmed: Lsn | None = None
    waiting: Unconfirmed | None = None

    def behind() -> str | None:
        nonlocal confirmed, looked, waiting
        found = find_slot(connection, slot)
        if found is None:
            return "there is no such slot"
        confirmed = found.confirmed_flush_lsn
        if confirmed is not None and confirmed >= lsn:
            return None
        if confirmed is not None and confirmed != looked and _on_disk(connection, lsn, taken):
            looked = confirmed  # what lies behind it stays the same
            waiting = unconfirmed(config, found, lsn)
        if waiting is not None and waiting.last is None:
            confirmed = waiting.confirmed
            point["lsn"], told["idle_until"] = str(confirmed), str(lsn)
            return None
        if waiting is not None and waiting.stored(config):
            told["stored_until"] = str(lsn)
            return None
        return f"it has confirmed {confirmed}, the point is at {lsn}"

    try:
        if find_slot(connection, slot) is None:
            raise ServerError(f"slot {slot}: there is no such slot")  # noqa: TRY301 - told below
        wait_until(f"slot {slot}", behind, within=within, every=EVERY)
    except ServerError as error:
        told |= {"caught_up": UNKNOWN, "reason": str(error)}
        progress(
            f"consistency point at {lsn}: {UNKNOWN} whether its events were delivered: {error}"
        )
    return told | {"confirmed_flush_lsn": str(confirmed) if confirmed else None}


def _on_disk(connection: psycopg.Connection[Any], lsn: Lsn, taken: float) -> bool:
    """Whether all that had committed at the point can be decoded: only flushed WAL is.

    An asynchronous commit is visible before. It is flushed within three times wal_writer_delay;
    records that end no transaction may stay in memory for as long as the source is idle.
    """
    flushed, delay = connection.execute(_FLUSHED).fetchone() or ("0/0", 0)
    return Lsn.parse(flushed) >= lsn or time.monotonic() - taken > 5 * delay / 1e3
