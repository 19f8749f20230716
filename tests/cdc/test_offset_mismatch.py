"""What Debezium does where slot and stored offset do not fit: whatever it is told, mostly nothing.

Learnt from the real connector, and asked again of every new version: its documentation promises
that `trust_offset` fails where the slot is ahead.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest

from fixtures.stacks.protocol import Component, Stack
from pipeline.cdc.reconcile import compared
from pipeline.errors import ServerError
from pipeline.postgres.replication.slots import behind, create_slot, drop_slot
from pipeline.postgres.server.session import connect
from pipeline.postgres.wal.lsn import Lsn
from pipeline.wait import wait_until
from tests.cdc.source import Source, captured

pytestmark = pytest.mark.stack

STRATEGIES = ("no_validation", "trust_offset", "trust_slot", "trust_greater_lsn")
BEYOND = 1 << 30
"""Bytes by which an offset lies beyond the WAL, as after a recovery to an earlier point."""
ARRIVES = timedelta(seconds=15)
_ROWS = count(100)


@pytest.fixture
def source(stack: Stack) -> Iterator[Source]:
    once = {"errors.max.retries": "0"}
    with captured(stack, "mismatch", "id int PRIMARY KEY", "VALUES (1)", settings=once) as made:
        made.run("INSERT INTO {} VALUES (2)")  # so that an offset of a commit is stored
        made.wait_delivered()
        yield made


def test_a_slot_ahead_of_the_offset_is_read_on_over_the_gap_in_silence(
    stack: Stack, source: Source
) -> None:
    """No strategy tells, `trust_offset` as little as the others; the server's log has a line."""
    told = _Told(stack)
    with _held_back(source):
        for strategy in STRATEGIES:
            skipped, arrived = _stopped_between(source, strategy, _advance)
            assert _without_event(source) >= {skipped}, strategy
            assert arrived not in _without_event(source), strategy
    assert told.lines("has been already streamed, forwarding to") >= 1


@pytest.mark.slow
def test_an_offset_ahead_of_the_slot_skips_what_waits(source: Source) -> None:
    """As an offset that somebody patched; by position it cannot be told from a sound one."""
    for strategy in STRATEGIES:
        skipped, arrived = _stopped_between(source, strategy, _patch_ahead)
        assert _without_event(source) >= {skipped}, strategy
        assert arrived not in _without_event(source), strategy


@pytest.mark.slow
def test_an_offset_beyond_the_wal_makes_a_task_run_that_delivers_nothing(source: Source) -> None:
    """With `trust_offset` the slot moves to the end of the WAL: what waited is lost for good."""
    connect, name = source.connect, source.name
    connect.stop(name)
    connect.wait_stopped(name)
    connect.put_config(name, connect.config(name) | {"offset.mismatch.strategy": "trust_offset"})
    _patch(source, Lsn(_end(source) + BEYOND))
    source.run("INSERT INTO {} VALUES (3)")
    committed = _end(source)
    connect.resume(name)
    moved = partial(behind, source.connection, name, committed)
    wait_until(f"{name} moved its slot", moved, within=ARRIVES)
    assert connect.status(name).trouble is None
    assert _without_event(source) == {3}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["no_validation", "trust_offset"])
def test_a_slot_that_was_made_again_stops_the_task(source: Source, strategy: str) -> None:
    """Where its WAL begins behind the offset, as that of a new slot does."""
    with pytest.raises(ServerError, match="no longer available"):
        _stopped_between(source, strategy, _remake)


@pytest.mark.slow
def test_a_slot_that_was_made_again_is_trusted_in_silence(source: Source) -> None:
    for strategy in ("trust_slot", "trust_greater_lsn"):
        skipped, arrived = _stopped_between(source, strategy, _remake)
        assert _without_event(source) >= {skipped}, strategy
        assert arrived not in _without_event(source), strategy


def _stopped_between(
    source: Source, strategy: str, act: Callable[[Source], None]
) -> tuple[int, int]:
    """Stop, write a row, act, write another one, resume, and wait for the second one's event."""
    connect, name = source.connect, source.name
    connect.stop(name)
    connect.wait_stopped(name)
    connect.put_config(name, connect.config(name) | {"offset.mismatch.strategy": strategy})
    first, second = next(_ROWS), next(_ROWS)
    source.run(f"INSERT INTO {{}} VALUES ({first})")
    act(source)
    source.run(f"INSERT INTO {{}} VALUES ({second})")
    connect.resume(name)

    def waiting() -> str | None:
        if "FAILED" in (trouble := str(connect.status(name).trouble)):
            raise ServerError(trouble)
        return f"row {second} has no event" if second in _without_event(source) else None

    wait_until(f"{name} by {strategy}", waiting, within=ARRIVES)
    return first, second


@contextmanager
def _held_back(source: Source) -> Iterator[None]:
    """Keep the slot's restart_lsn behind the offset: Debezium fails, loudly, once it is ahead.

    It goes on to records of running transactions, which the server writes every 15 s, but never
    beyond the oldest that is open.
    """
    with connect(source.config.postgres) as open_one:
        open_one.execute("SELECT pg_logical_emit_message(true, 'test', 'never committed')")
        source.run("INSERT INTO {} VALUES (3)")
        source.wait_delivered()
        yield
        open_one.rollback()


def _advance(source: Source) -> None:
    source.connection.execute("SELECT pg_log_standby_snapshot()")  # as one may come by itself
    source.connection.execute("SELECT pg_logical_emit_message(true, 'test', 'flushed')")
    source.connection.execute(
        "SELECT pg_replication_slot_advance(%s, %s)", [source.name, str(_end(source))]
    )


def _remake(source: Source) -> None:
    drop_slot(source.connection, source.name)
    create_slot(source.connection, source.name)


def _patch_ahead(source: Source) -> None:
    _patch(source, _end(source))


def _patch(source: Source, lsn: Lsn) -> None:
    """Say that everything up to there was delivered, as Debezium does behind a commit."""
    [last] = source.connect.offsets(source.name)
    position = dict.fromkeys(("lsn", "lsn_commit", "lsn_proc"), int(lsn))
    told = {"txId": last.offset["txId"], "ts_usec": last.offset["ts_usec"]}
    offset = {**position, **told, "messageType": "COMMIT"}
    source.connect.patch_offsets(source.name, [replace(last, offset=offset)])


def _end(source: Source) -> Lsn:
    row = source.connection.execute("SELECT pg_current_wal_lsn()::text").fetchone()
    assert row is not None
    return Lsn.parse(row[0])


def _without_event(source: Source) -> set[Any]:
    """Keys of the rows that no event names."""
    found = compared(source.config, source.connection, source.table)
    return {key[0] for key in found.missing}


class _Told:
    """What the server's log says since a moment."""

    def __init__(self, stack: Stack) -> None:
        self._log = stack.log(Component.POSTGRES)
        self._began = self._log.stat().st_size

    def lines(self, words: str) -> int:
        told = self._log.read_bytes()[self._began :].decode(errors="replace")
        return sum(words in line for line in told.splitlines())
