"""Faults that are a person's statement, while a client holds what the statement needs."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from fixtures.faults.outages import (
    Outage,
    delete_range,
    drop_table,
    truncate_table,
    update_everything,
)
from fixtures.stacks.native import NativeStack
from fixtures.workload.schema import create_shop
from pipeline.wait import wait_until
from tests.recovery.history import SOON
from tests.recovery.museum import connect

TABLE = "LOCK TABLE {} IN ROW EXCLUSIVE MODE"
ROW = "UPDATE documents SET rev = rev + 1 WHERE id = {}"


@pytest.fixture
def shop(breakable: NativeStack) -> NativeStack:
    breakable.make_clean()
    with connect(breakable.config.postgres) as connection:
        create_shop(connection)
        connection.execute("INSERT INTO customers SELECT 1, '', '', true, null, 0, 0")
        connection.execute("INSERT INTO orders SELECT 1, 1, '', now(), null, 0")
        connection.execute(
            "INSERT INTO documents SELECT id, '', '{}', '', 0 FROM generate_series(1, 10) id"
        )
    return breakable


@pytest.mark.parametrize(
    ("fault", "held", "wanted"),
    [
        pytest.param(
            drop_table("orders"), TABLE.format("payments"), TABLE.format("orders"), id="drop"
        ),
        pytest.param(
            truncate_table("orders"),
            TABLE.format("payments"),
            TABLE.format("orders"),
            id="truncate",
        ),
        pytest.param(delete_range("documents"), ROW.format(4), ROW.format(1), id="delete"),
        pytest.param(
            update_everything("documents", "title", "'x'"),
            ROW.format(9),
            ROW.format(1),
            id="update",
        ),
    ],
)
def test_who_waits_for_each_other_comes_to_an_end(
    shop: NativeStack, fault: Outage, held: str, wanted: str
) -> None:
    """PostgreSQL would choose a victim: the fault, or a client that is none of its business."""
    with connect(shop.config.postgres) as client, ThreadPoolExecutor(1) as beside:
        with client.transaction():
            client.execute(held.encode())
            broken = beside.submit(fault, shop)
            with connect(shop.config.postgres) as looking:
                wait_until("the fault waits", lambda: _waits(looking), within=SOON)
            client.execute(wanted.encode())
        assert broken.result(timeout=SOON.total_seconds())


def _waits(looking: psycopg.Connection[tuple[object, ...]]) -> str | None:
    row = looking.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone()
    return None if row else "no lock is waited for"
