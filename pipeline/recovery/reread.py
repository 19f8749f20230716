"""CDC goes on after topics were lost, while clients write all the while."""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import psycopg

from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.reconcile import Reconciliation, reconcile, topic_ends
from pipeline.cdc.resnapshot import resnapshot
from pipeline.cdc.slots import behind, find_slot
from pipeline.config import PipelineConfig
from pipeline.errors import RestoreError, ServerError
from pipeline.postgres.lsn import Lsn
from pipeline.recovery.reconnect import connectors, published
from pipeline.wait import wait_until

STREAMS, SETTLED = timedelta(seconds=60), timedelta(seconds=10)


def go_on(config: PipelineConfig) -> None:
    """Resume the connectors where they stood: no event is missing."""
    with (
        ConnectClient(config.connect.url) as connect,
        psycopg.connect(**config.postgres.conninfo(), autocommit=True) as connection,
    ):
        for name in connectors(config, connect):
            connect.resume(name)
            connect.wait_running(name)

        def silent() -> str | None:
            slot = find_slot(connection, config.cdc.slot)
            return None if slot and slot.active else "the slot has no reader"

        wait_until("the connectors stream", silent, within=STREAMS)


def every_row(
    config: PipelineConfig, recovery: str, progress: Callable[[str], None]
) -> Reconciliation:
    """Read every row again, and bury in the topics what has no row any more."""
    with psycopg.connect(**config.postgres.conninfo(), autocommit=True) as connection:
        since = topic_ends(config, published(connection, config.cdc.publication))
        with ConnectClient(config.connect.url) as connect:
            for name in connectors(config, connect):
                progress(f"  {name} reads every row again")
                resnapshot(connect, connection, name, config.cdc.slot)
    found = reconcile(config, since=since, recovery=recovery, settle=lambda: _settle(config))
    if found.missing:
        told = "; ".join(f"{t.table}: {t.missing_examples}" for t in found.topics if t.missing)
        raise RestoreError(f"{found.missing} rows have no event after the re-read: {told}")
    progress(f"  topics equal tables; {found.ghosts} ghosts buried")
    return found


def _settle(config: PipelineConfig) -> None:
    """Wait for what clients wrote meanwhile, which the lock of the comparison keeps still.

    A slot's reader confirms commits only: where nobody writes there is nothing to wait for.
    """
    with (
        psycopg.connect(**config.postgres.conninfo(), autocommit=True) as live,
        suppress(ServerError),
    ):
        row = live.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        now, slot = Lsn.parse(row[0]) if row else Lsn(0), config.cdc.slot
        wait_until("events of clients", lambda: behind(live, slot, now), within=SETTLED)
