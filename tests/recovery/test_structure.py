"""What amcheck is asked before clients are let in: damage is told, and nothing passes for it."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from fixtures.stacks.versions import since
from pipeline.errors import RestoreError
from pipeline.postgres.server.amcheck import LIMITS, amcheck
from pipeline.runbooks.structure import examine
from tests.recovery.awkward import GUARD, SCHEMA, UNQUALIFIED
from tests.recovery.history import Source

NOTHING_MORE = ["database template0: it allows no connections", LIMITS]


@pytest.fixture
def other(source: Source) -> Iterator[psycopg.Connection[Any]]:
    """A second database, with an index that takes longer than a moment to read."""
    source.run("create database other")
    conninfo = source.config.postgres.conninfo(dbname="other")
    with psycopg.connect(**conninfo, autocommit=True) as connection:
        connection.execute("create table rows (id int primary key)")
        connection.execute("insert into rows select generate_series(1, 200000)")
        yield connection


def examined(source: Source, said: list[str] | None = None) -> dict[str, Any]:
    with source.connect() as connection:
        return examine(connection, source.config.postgres, ([] if said is None else said).append)


@pytest.mark.usefixtures("other")
def test_each_database_is_told_as_it_is_done(source: Source) -> None:
    said: list[str] = []
    facts = examined(source, said)
    assert "  other: 1 indexes and 1 tables are sound" in said
    assert facts["databases"] == ["other", "postgres", "template1"]
    assert facts["not_examined"] == ["database template0: it allows no connections", LIMITS]


def test_a_reading_that_ends_its_process_is_damage(
    source: Source, other: psycopg.Connection[Any]
) -> None:
    """As a crash does; what was found before it is told too."""
    other.execute("create table later as select 1 as n")
    bodies = {
        "a_lies": "return n + 1",
        "z_ends": "perform pg_terminate_backend(pg_backend_pid()); return n",
    }
    function = "create or replace function {}(n int) returns int immutable language plpgsql as"
    for name, body in bodies.items():
        made = function.format(name)
        other.execute(f"{made} 'begin return n; end'".encode())
        other.execute(f"create index {name}_index on later ({name}(n))".encode())
        other.execute(f"{made} 'begin {body}; end'".encode())
    told = r"database other: index public\.a_lies_index: .*; index public\.z_ends_index: terminat"
    with pytest.raises(RestoreError, match=told):
        examined(source)


def test_a_database_whose_folder_is_gone_is_damage(
    source: Source, other: psycopg.Connection[Any]
) -> None:
    row = other.execute("select oid from pg_database where datname = 'other'").fetchone()
    assert row is not None
    other.close()
    folder = source.data / f"base/{row[0]}"
    folder.rename(folder.with_name("gone"))
    try:
        with pytest.raises(RestoreError, match=r"database other: .*does not exist"):
            examined(source)
    finally:
        folder.with_name("gone").rename(folder)


def test_a_database_whose_drop_was_interrupted_is_not_examined(
    source: Source, other: psycopg.Connection[Any]
) -> None:
    other.close()
    source.run("update pg_database set datconnlimit = -2 where datname = 'other'")
    facts = examined(source)
    assert "database other: it is invalid, its DROP was interrupted" in str(facts["not_examined"])
    assert facts["databases"] == ["postgres", "template1"]
    source.run("update pg_database set datconnlimit = -1 where datname = 'other'")


@pytest.mark.parametrize(
    ("setting", "came"), [("statement_timeout", 7), ("transaction_timeout", 17)]
)
@pytest.mark.usefixtures("other")
def test_a_time_out_is_not_damage(source: Source, setting: str, came: int) -> None:
    since(came, setting)
    source.run(f"alter database other set {setting} = '20ms'")
    assert examined(source)["indexes"] == 1


def test_an_extension_of_an_older_version_is_brought_up_to_date(
    other: psycopg.Connection[Any],
) -> None:
    other.execute("create extension amcheck version '1.1'")
    assert amcheck(other) == ([], [LIMITS], (1, 1))
    row = other.execute("select extversion from pg_extension where extname = 'amcheck'").fetchone()
    assert row == ("1.1",)


@pytest.fixture
def awkward(source: Source, other: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    other.execute(SCHEMA.encode())
    assert examined(source)["not_examined"] == NOTHING_MORE
    return other


def test_an_index_whose_function_does_not_run_is_not_damaged(
    source: Source, awkward: psycopg.Connection[Any]
) -> None:
    """It needs a search path that the application sets, which amcheck does not believe since 17."""
    awkward.execute(UNQUALIFIED.encode())
    facts = examined(source)
    told = "database other: structure of index Shop Élan.by_short: function shortened(text) does"
    assert str(facts["not_examined"][0]).startswith(told)
    assert facts["not_examined"][1:] == NOTHING_MORE
    assert "other" in facts["databases"]
    awkward.execute(GUARD.encode())  # against DDL: no obstacle
    assert examined(source) == facts


def test_what_keeps_amcheck_from_working_is_told_once_and_is_no_damage(
    source: Source, awkward: psycopg.Connection[Any]
) -> None:
    source.run("drop role if exists reader", "create role reader")
    awkward.execute("create schema elsewhere")
    awkward.execute("create extension amcheck schema elsewhere version '1.1'")
    awkward.execute("set role reader")
    damaged, unread, sound = amcheck(awkward)
    assert (damaged, unread[-1], sound) == ([], LIMITS, (0, 0))
    assert len(unread) == 3  # for indexes, for tables, and the limits
    assert "and 5 more: permission denied for schema elsewhere" in unread[0]
    assert "of a version that cannot do it" in unread[1]
    awkward.execute("reset role")
    assert amcheck(awkward)[0:2] == ([], [LIMITS])  # brought up to date for as long as it takes
    awkward.execute("drop extension amcheck")
    awkward.execute("set default_transaction_read_only = on")
    told = "structure: amcheck is not at hand: cannot execute CREATE SCHEMA in a read-only"
    assert amcheck(awkward)[1][0].startswith(told)
    source.run("drop role reader")
