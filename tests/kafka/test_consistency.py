"""The point of an archive on a real source: reached, idle, too slow, without a slot."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from fixtures.stacks import training
from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component
from pipeline.cdc import point as consistency
from pipeline.config import PipelineConfig
from pipeline.postgres.replication.slots import create_slot, find_slot
from pipeline.postgres.wal.lsn import Lsn
from pipeline.wait import wait_until

pytestmark = pytest.mark.stack
SOON = timedelta(seconds=1)


@pytest.fixture(scope="module")
def config() -> Iterator[PipelineConfig]:
    with NativeStack.launch(
        artifacts=training.prepared(), components=(Component.POSTGRES,), settings=_settings
    ) as started:
        yield started.config


def _settings(_: PipelineConfig) -> Mapping[str, str]:
    return {"wal_level": "logical", "autovacuum": "off", "wal_writer_delay": "20ms"}


@pytest.fixture
def source(config: PipelineConfig) -> Iterator[psycopg.Connection[Any]]:
    """A published table and one that is not, and a slot whose consumer has confirmed all."""
    with psycopg.connect(**config.postgres.conninfo(), autocommit=True) as connection:
        connection.execute("CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE notes (id int)")
        connection.execute(f"CREATE PUBLICATION {config.cdc.publication} FOR TABLE orders")
        create_slot(connection, config.cdc.slot)
        yield connection
        connection.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots;"
            f"DROP PUBLICATION {config.cdc.publication}; DROP TABLE orders, notes"
        )


def reached(config: PipelineConfig) -> dict[str, Any]:
    return consistency.reach(config, lambda _: None, within=SOON)


def at(connection: psycopg.Connection[Any]) -> Lsn:
    row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
    assert row is not None
    return Lsn.parse(row[0])


def transactions(connection: psycopg.Connection[Any]) -> object:
    """Grows with each that writes. WAL grows by reading too: a hint bit may log its page."""
    row = connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())").fetchone()
    assert row is not None
    return row[0]


@pytest.mark.usefixtures("source")
def test_a_point_that_the_consumer_has_passed(config: PipelineConfig) -> None:
    """The slot's own start lies behind everything there is."""
    told = reached(config)
    assert told["caught_up"] is True
    assert Lsn.parse(told["confirmed_flush_lsn"]) >= Lsn.parse(told["point"]["lsn"])


def test_an_idle_source_is_caught_up_and_nothing_was_written_to_find_it(
    config: PipelineConfig, source: psycopg.Connection[Any]
) -> None:
    """Checkpoints and tables that are not published move the LSN on; the consumer stays."""
    slot = find_slot(source, config.cdc.slot)
    source.execute("INSERT INTO notes SELECT generate_series(1, 100)")
    source.execute("CHECKPOINT")
    before = transactions(source)
    told = reached(config)
    assert slot is not None
    assert told["caught_up"] is True
    assert told["point"]["lsn"] == told["confirmed_flush_lsn"] == str(slot.confirmed_flush_lsn)
    assert Lsn.parse(told["idle_until"]) > Lsn.parse(told["point"]["lsn"])
    assert transactions(source) == before
    assert source.execute("SELECT slot_name FROM pg_replication_slots").fetchall() == [
        (config.cdc.slot,)
    ]


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO orders VALUES (1)",
        "INSERT INTO notes VALUES (1); INSERT INTO orders VALUES (1)",
        "INSERT INTO orders VALUES (1); DELETE FROM orders",
        "INSERT INTO orders SELECT generate_series(1, 1000); TRUNCATE orders",
        "SET synchronous_commit = off; INSERT INTO orders VALUES (1)",
    ],
)
def test_a_published_change_that_was_not_delivered_is_unknown_after_the_wait(
    config: PipelineConfig, source: psycopg.Connection[Any], change: str
) -> None:
    for statement in change.split("; "):
        source.execute(statement)
    told = reached(config)
    assert told["caught_up"] == consistency.UNKNOWN
    assert "it has confirmed" in told["reason"]
    assert "idle_until" not in told


def test_a_commit_that_is_visible_and_not_yet_in_the_log_is_waited_for(
    config: PipelineConfig, source: psycopg.Connection[Any]
) -> None:
    """It cannot be decoded before it is flushed: to look at once would find nothing."""
    source.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
    source.execute("SELECT pg_reload_conf()")
    source.execute("SET synchronous_commit = off")
    wait_until("a long delay", lambda: _shorter(source), within=timedelta(seconds=10))
    source.execute("INSERT INTO orders VALUES (1)")
    told = reached(config)
    source.execute("ALTER SYSTEM RESET wal_writer_delay")
    source.execute("SELECT pg_reload_conf()")
    assert told["caught_up"] == consistency.UNKNOWN


def _shorter(connection: psycopg.Connection[Any]) -> str | None:
    row = connection.execute("SHOW wal_writer_delay").fetchone()
    return None if row == ("10s",) else str(row)


def test_what_was_delivered_before_an_idle_time_is_caught_up(
    config: PipelineConfig, source: psycopg.Connection[Any]
) -> None:
    source.execute("INSERT INTO orders VALUES (1)")
    source.execute("SELECT pg_replication_slot_advance(%s, %s)", [config.cdc.slot, str(at(source))])
    source.execute("INSERT INTO notes VALUES (1)")
    told = reached(config)
    assert (told["caught_up"], "idle_until" in told) == (True, True)


def test_a_missing_slot_is_unknown_and_named(
    config: PipelineConfig, source: psycopg.Connection[Any]
) -> None:
    source.execute("SELECT pg_drop_replication_slot(%s)", [config.cdc.slot])
    told = reached(config)
    assert told["caught_up"] == consistency.UNKNOWN
    assert told["reason"] == f"slot {config.cdc.slot}: there is no such slot"


def test_a_publication_that_is_gone_is_no_proof_of_idleness(
    config: PipelineConfig, source: psycopg.Connection[Any]
) -> None:
    source.execute(f"DROP PUBLICATION {config.cdc.publication}")
    source.execute("INSERT INTO orders VALUES (1)")
    told = reached(config)
    source.execute(f"CREATE PUBLICATION {config.cdc.publication} FOR TABLE orders")
    assert told["caught_up"] == consistency.UNKNOWN
