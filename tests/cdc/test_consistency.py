"""`pipeline verify consistency` beside the real connector: each planted fault is named."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from fixtures.stacks.protocol import Stack
from pipeline.cdc.consistency import verify
from pipeline.cdc.verdicts import FAIL, PASS, UNKNOWN, TableVerdict
from pipeline.cli import app
from pipeline.postgres.wal.lsn import Lsn
from tests.cdc.source import Source, captured, records
from tests.cdc.test_state_reading import config_file

pytestmark = pytest.mark.stack
SOON = timedelta(seconds=1)
COLUMNS = "id int PRIMARY KEY, amount numeric(9, 2), note text, body text"
KINDS = ("without_event", "ghosts", "stale", "out_of_order", "duplicates")
ROWS = "SELECT g, g * 1.5, 'first', repeat(md5(g::text), 200) FROM generate_series(1, 100) g"


def compared(source: Source, **asked: Any) -> TableVerdict:  # noqa: ANN401 - passed on
    [found] = verify(source.config, lambda _: None, **asked).tables
    return found


def told(one: TableVerdict) -> tuple[int, int, int, int]:
    return one.without_event, one.ghosts, one.stale, one.out_of_order


@contextmanager
def unheard(source: Source) -> Iterator[None]:
    """Have the connector go on behind what is changed meanwhile, as if it had told of it."""
    source.connect.stop(source.name)
    source.connect.wait_stopped(source.name)
    yield
    row = source.connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
    lsn = int(Lsn.parse((row or ("0/0",))[0]))
    [last] = source.connect.offsets(source.name)
    moved = last.offset | {"lsn": lsn, "lsn_commit": lsn, "lsn_proc": lsn}
    source.connect.patch_offsets(source.name, [replace(last, offset=moved)])
    source.connect.resume(source.name)
    source.connect.wait_running(source.name)


@contextmanager
def writing(source: Source) -> Iterator[None]:
    """Let a client insert, change and delete rows all the while."""
    ended = threading.Event()

    def write() -> None:
        with psycopg.connect(**source.config.postgres.conninfo(), autocommit=True) as client:
            number = 1_000
            while not ended.is_set():
                number += 1
                name = source.table
                client.execute(f"INSERT INTO {name} VALUES ({number}, 1, 'new', 'x')".encode())
                client.execute(f"UPDATE {name} SET note = '{number}' WHERE id % 50 = 1".encode())
                client.execute(f"DELETE FROM {name} WHERE id = {number - 5}".encode())

    client = threading.Thread(target=write)
    client.start()
    try:
        yield
    finally:
        ended.set()
        client.join()


def produce(source: Source, key: bytes, value: bytes | None) -> None:
    producer = Producer({"bootstrap.servers": source.config.kafka.bootstrap_servers})
    producer.produce(source.topic, key=key, value=value)
    assert producer.flush(30) == 0


def test_each_fault_is_named_and_nothing_else(stack: Stack, tmp_path: Path) -> None:
    """While a client writes, there is nothing to tell; then events are skipped, and invented."""
    with captured(stack, "consistent", COLUMNS, ROWS) as source:
        source.run("UPDATE {} SET note = 'second' WHERE id <= 10")  # the body stays in TOAST
        source.run("UPDATE {} SET id = 777 WHERE id = 7")
        source.run("DELETE FROM {} WHERE id = 8")
        with writing(source):
            for _ in range(3):
                found = compared(source)
                assert (found.outcome, *told(found)) == (PASS, 0, 0, 0, 0), found
        source.run("DELETE FROM {} WHERE id > 1000")
        source.wait_delivered()
        known = {r.key(): r.value() for r in records(source.config, source.topic) if r.value()}
        with unheard(source):
            source.run("INSERT INTO {} VALUES (500, 1, 'unheard', 'unheard')")
            source.run("UPDATE {} SET amount = 0 WHERE id IN (20, 21)")
            source.run("DELETE FROM {} WHERE id IN (30, 31, 32)")
        found = compared(source)
        assert (found.outcome, *told(found)) == (FAIL, 1, 3, 2, 0), found
        assert found.examples["stale"] == ["20 (amount)", "21 (amount)"]
        assert found.examples["without event"] == ["500"]
        _invent(source, known)
        file = str(config_file(source.config, tmp_path))
        ended = CliRunner().invoke(app, ["verify", "consistency", "--json", "-c", file])
        facts = json.loads(ended.stdout)
        [found] = facts["tables"]
        assert (ended.exit_code, facts["outcome"]) == (1, FAIL), ended.output
        assert [found[each] for each in KINDS] == [2, 4, 4, 1, 2], found
        assert len(found["unseen"]) == 2, found


def _invent(source: Source, known: dict[bytes, bytes]) -> None:
    """Write into the topic what no connector would."""
    keys, bodies = list(known), list(known.values())
    produce(source, keys[4], bodies[4])  # once more, and no harm
    first = next(r for r in records(source.config, source.topic) if r.key() == keys[0])
    produce(source, keys[0], first.value())  # an earlier state
    change = {"op": "u", "source": _source(source, 5), "after": {"id": 3, "note": "late"}}
    produce(source, keys[2], json.dumps(change).encode())
    produce(source, keys[69], None)
    ghost = {"op": "c", "source": _source(source, 6), "after": {"id": 9_999}}
    produce(source, b'{"id": 9999}', json.dumps(ghost).encode())
    produce(source, b"hello", b"world")


def _source(source: Source, lsn: int) -> dict[str, object]:
    """Be of the table, and of a change that was long before all others."""
    return {"schema": "public", "table": source.name, "lsn": lsn, "txId": 5}


@pytest.mark.slow
def test_what_nobody_can_know_is_unknown(stack: Stack) -> None:
    """The connector is behind, or the topic has lost its first records: neither is a loss."""
    with captured(stack, "unknown", COLUMNS, ROWS) as source:
        source.connect.stop(source.name)
        source.connect.wait_stopped(source.name)
        source.run("INSERT INTO {} VALUES (500, 1, 'on its way', '')")
        found = compared(source, within=SOON)
        assert (found.outcome, *told(found)) == (UNKNOWN, 1, 0, 0, 0), found
        assert "not all was delivered" in found.unknown[0]
        source.connect.resume(source.name)
        source.connect.wait_running(source.name)
        assert compared(source).outcome == PASS
        admin = AdminClient({"bootstrap.servers": source.config.kafka.bootstrap_servers})
        [cut] = admin.delete_records([TopicPartition(source.topic, 0, 10)]).values()
        cut.result(timeout=30)
        found = compared(source)
        assert (found.outcome, found.ghosts, found.stale) == (UNKNOWN, 0, 0), found
        assert found.without_event > 0
        assert "has lost its first records" in found.may_lack[0]
