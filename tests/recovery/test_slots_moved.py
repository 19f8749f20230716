"""A slot is moved forward only over what nobody would miss."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from pipeline.errors import RecoveryRefused, ServerError
from pipeline.postgres.replication.advance import advance, flushed, stretch
from pipeline.postgres.replication.slots import create_slot, drop_slot, find_slot
from pipeline.postgres.wal.lsn import Lsn
from tests.recovery.history import History

NAME = 'moved "slot"'


@pytest.fixture(scope="module")
def server(history: History) -> Iterator[psycopg.Connection[Any]]:
    with history.source.connect() as connection:
        connection.execute("create table told (id int primary key); create table untold (id int)")
        connection.execute('create publication "moved ""slot""" for table told')
        yield connection
        connection.execute('drop publication "moved ""slot"""; drop table told, untold')


@pytest.fixture
def slot(server: psycopg.Connection[Any]) -> Iterator[str]:
    create_slot(server, "moved")
    yield "moved"
    with suppress(ServerError):
        drop_slot(server, "moved")


def test_what_is_not_published_is_passed_over(server: psycopg.Connection[Any], slot: str) -> None:
    server.execute("insert into untold select generate_series(1, 100)")
    end = flushed(server)
    assert advance(server, slot, NAME, end).confirmed_flush_lsn == end
    assert advance(server, slot, NAME, end).confirmed_flush_lsn == end, "it may be said again"


def test_what_would_be_skipped_is_counted_and_nothing_is_moved(
    server: psycopg.Connection[Any], slot: str
) -> None:
    before = find_slot(server, slot)
    server.execute("insert into told select generate_series(1, 3)")
    with server.transaction():
        server.execute("update told set id = id + 10; delete from told where id = 11")
    end = flushed(server)
    server.execute("insert into told values (99)")
    told = r"skip 7 published changes of 2 transactions in [\d,]+ bytes of WAL"
    with pytest.raises(RecoveryRefused, match=told):
        advance(server, slot, NAME, end)
    assert find_slot(server, slot) == before


def test_a_transaction_that_ends_behind_the_position_is_not_skipped(
    server: psycopg.Connection[Any], slot: str, history: History
) -> None:
    """Its changes are decoded whole as soon as its commit is read."""
    with history.source.connect() as other, other.transaction():
        other.execute("insert into told values (1001)")
        server.execute("insert into untold values (1)")
        server.execute("checkpoint")
        between = flushed(server)
    found = find_slot(server, slot)
    assert found is not None
    assert stretch(server, found, NAME, between).changes == 0
    advance(server, slot, NAME, between)
    moved = find_slot(server, slot)
    assert moved is not None
    assert stretch(server, moved, NAME, flushed(server)).changes == 1


def test_where_no_position_can_be_reached_it_is_said(
    server: psycopg.Connection[Any], slot: str
) -> None:
    found = find_slot(server, slot)
    assert found is not None
    assert found.confirmed_flush_lsn is not None
    for to, told in (
        (Lsn(found.confirmed_flush_lsn - 8), "it does not go back to"),
        (flushed(server) + (1 << 30), "everything that waits would be skipped"),
    ):
        with pytest.raises(RecoveryRefused, match=told):
            advance(server, slot, NAME, to)
    with pytest.raises(RecoveryRefused, match="there is no slot 'nobody'"):
        advance(server, "nobody", NAME, flushed(server))
    with pytest.raises(ServerError, match="nothing can be counted"):
        advance(server, slot, "nobody", flushed(server))
