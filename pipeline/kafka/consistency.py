"""The point at which topics and database are archived together: a snapshot, and an LSN behind it.

An event belongs to the point if its transaction is visible in the snapshot. Topics may end once the
slot's consumer has confirmed the LSN. Nothing is written to the source.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg

from pipeline.cdc.slots import find_slot
from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError, ServerError
from pipeline.postgres.lsn import Lsn
from pipeline.wait import wait_until

WITHIN = timedelta(seconds=30)
EVERY = timedelta(milliseconds=200)
UNKNOWN = "UNKNOWN"

# the LSN is read after the snapshot: what the snapshot sees has committed, so lies before it
_POINT = """
    SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text, now()::text,
           (pg_control_system()).system_identifier::text,
           (pg_control_checkpoint()).timeline_id
"""


def reach(
    config: PipelineConfig, progress: Callable[[str], None], *, within: timedelta = WITHIN
) -> dict[str, Any]:
    """Take a point, wait until its events have been delivered, and tell both as JSON.

    `point` is None with a `reason` where PostgreSQL does not answer. `caught_up` is True, or
    UNKNOWN with a `reason`: the consumer of an idle source may confirm nothing until a published
    table changes again.
    """
    try:
        with psycopg.connect(**config.postgres.conninfo(), autocommit=True) as connection:
            return _reach(connection, config.cdc.slot, progress, within)
    except (psycopg.Error, ConfigError) as error:
        reason = f"PostgreSQL does not answer: {str(error).strip()}"
        progress(f"no consistency point: {reason}")
        return {"point": None, "reason": reason}


def _reach(
    connection: psycopg.Connection[Any],
    slot: str,
    progress: Callable[[str], None],
    within: timedelta,
) -> dict[str, Any]:
    row = connection.execute(_POINT).fetchone() or ()
    names = ("snapshot", "lsn", "time", "system_identifier", "timeline")
    told: dict[str, Any] = {"point": dict(zip(names, row, strict=True)), "slot": slot}
    lsn = Lsn.parse(told["point"]["lsn"])
    confirmed: Lsn | None = None

    def behind() -> str | None:
        nonlocal confirmed
        found = find_slot(connection, slot)
        if found is None:
            return "there is no such slot"
        confirmed = found.confirmed_flush_lsn
        if confirmed is not None and confirmed >= lsn:
            return None
        return f"it has confirmed {confirmed}, the point is at {lsn}"

    caught_up: dict[str, Any] = {"caught_up": True}
    try:
        if find_slot(connection, slot) is None:
            raise ServerError(f"slot {slot}: there is no such slot")  # noqa: TRY301 - told below
        wait_until(f"slot {slot}", behind, within=within, every=EVERY)
    except ServerError as error:
        caught_up = {"caught_up": UNKNOWN, "reason": str(error)}
        progress(
            f"consistency point at {lsn}: {UNKNOWN} whether its events were delivered: {error}"
        )
    return told | caught_up | {"confirmed_flush_lsn": str(confirmed) if confirmed else None}
