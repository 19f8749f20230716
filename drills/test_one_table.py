"""Drills: one table goes wrong; it alone is brought back, and clients of the others go on."""

import pytest

from fixtures.drill import Drill
from fixtures.drill_table import restore_tables
from fixtures.faults.outages import (
    Outage,
    delete_range,
    drop_table,
    truncate_table,
    update_everything,
)
from fixtures.service import CONNECTOR
from pipeline.cdc.connectors import ConnectClient

pytestmark = [pytest.mark.stack, pytest.mark.drill]
nightly = pytest.mark.slow


def test_one_table_dropped(drill: Drill) -> None:
    """After an operator dropped a table, it alone comes back while clients go on.

    The table orders is dropped, and the foreign keys of two others with it. `pipeline find` names
    the transaction. A side server is replayed to the moment before it, and the table is made again
    in the live database, with all that belongs to it. No write to another table may be missing.
    """
    drill.write(acknowledged=2_000)
    drill.back_up()
    drill.write(acknowledged=1_000)
    with drill.outage(drop_table("orders")):
        restore_tables(drill, drill.find(table="orders"), "orders")
        drill.verify()
    drill.finish()


@nightly
def test_one_table_dropped_before_its_events_left(drill: Drill) -> None:
    """After a table was dropped whose newest changes were still on their way, it comes back.

    Debezium asks the database for a table's key when it decodes the first change of it. The table
    is gone by then, so those events have no key, and belong to no row. Every row of the table that
    was made again must have an event of its own.
    """
    drill.write(acknowledged=2_000)
    drill.back_up()
    with ConnectClient(drill.service.config.connect) as connect:
        connect.stop(CONNECTOR)
        connect.wait_stopped(CONNECTOR)
        drill.write(acknowledged=500)
        with drill.outage(drop_table("orders")):
            connect.resume(CONNECTOR)
            connect.wait_running(CONNECTOR)
            restore_tables(drill, drill.find(table="orders"), "orders")
            drill.verify()
    drill.finish()


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        pytest.param("documents", delete_range("documents"), id="range-deleted"),
        pytest.param("documents", truncate_table("documents"), id="truncated"),
        pytest.param("events", update_everything("events", "name", "'x'"), id="partitions-updated"),
    ],
)
@nightly
def test_one_table_wrong(drill: Drill, table: str, fault: Outage) -> None:
    """After one bad statement, rows of its table are put back while clients go on.

    Only rows that differ are deleted, updated or inserted, in one transaction, so that consumers
    of changes see just these. No write to another table may be missing.
    """
    drill.write(acknowledged=8_000)  # half of a small table is more than `find` passes over
    drill.back_up()
    drill.write(acknowledged=1_000)
    with drill.outage(fault):
        restore_tables(drill, drill.find(table=table), table)
        drill.verify()
    drill.finish()
