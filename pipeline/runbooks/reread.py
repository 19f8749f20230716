"""CDC goes on after topics were lost, while clients write all the while."""

from collections.abc import Callable, Collection
from datetime import timedelta
from functools import partial

from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.debezium import own_connectors
from pipeline.cdc.reconcile import Reconciliation, reconcile, topic_ends
from pipeline.cdc.resnapshot import resnapshot
from pipeline.config import PipelineConfig
from pipeline.errors import RestoreError
from pipeline.postgres.replication.slots import Connection, unread
from pipeline.postgres.server import session
from pipeline.runbooks.reconnect import published
from pipeline.wait import wait_until

ReadAgain = Callable[[ConnectClient, Connection, str, str], None]
STREAMS = timedelta(seconds=60)
ARRIVING = timedelta(seconds=30)
"""How long an event of a client may take that began to write while the tables were compared."""


def go_on(config: PipelineConfig) -> None:
    """Resume the connectors where they stood: no event is missing."""
    with (
        ConnectClient(config.connect) as connect,
        session.connect(config.postgres, autocommit=True) as connection,
    ):
        for name in own_connectors(config, connect):
            connect.resume(name)
            connect.wait_running(name)
        reads = partial(unread, connection, config.cdc.slot)
        wait_until("the connectors stream", reads, within=STREAMS)


def every_row(
    config: PipelineConfig,
    recovery: str,
    progress: Callable[[str], None],
    left_out: Collection[str] = (),
    *,
    read_again: ReadAgain = resnapshot,
) -> Reconciliation:
    """Read every row again, and bury in the topics what has no row; not in those left out.

    `read_again` has a STOPPED connector do that, and returns when it streams.
    """
    with session.connect(config.postgres, autocommit=True) as connection:
        since = topic_ends(config, published(connection, config.cdc.publication))
        with ConnectClient(config.connect) as connect:
            for name in own_connectors(config, connect):
                progress(f"  {name} reads every row again")
                read_again(connect, connection, name, config.cdc.slot)
    found = reconcile(config, since=since, recovery=recovery, arriving=ARRIVING, left_out=left_out)
    if found.missing:
        told = "; ".join(f"{t.table}: {t.missing_examples}" for t in found.topics if t.missing)
        raise RestoreError(f"{found.missing} rows have no event after the re-read: {told}")
    progress(f"  {found.told}")
    return found
