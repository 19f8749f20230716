"""Slots and publications on a real PostgreSQL."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from fixtures.stacks.protocol import Stack
from pipeline.errors import ServerError
from pipeline.postgres.replication.publications import (
    Publication,
    differences,
    find_publication,
    recreate,
)
from pipeline.postgres.replication.slots import Slot, behind, create_slot, drop_slot, find_slot
from pipeline.postgres.wal.lsn import Lsn

pytestmark = pytest.mark.stack

NAME = "Source side"
SETUP = """
    CREATE SCHEMA "Side A"; CREATE SCHEMA side_b; CREATE ROLE side_owner SUPERUSER;
    CREATE TABLE "Side A"."Order ""lines" (id int PRIMARY KEY, "the state" text, note text);
    CREATE TABLE "Side A".plain (id int PRIMARY KEY);
    CREATE PUBLICATION "Source side"
        FOR TABLE "Side A"."Order ""lines" (id, "the state") WHERE ("the state" <> 'it''s {} %s'),
                  "Side A".plain
        WITH (publish = 'insert, delete', publish_via_partition_root);
    ALTER PUBLICATION "Source side" OWNER TO side_owner"""
TEARDOWN = """
    DROP PUBLICATION IF EXISTS "Source side"; DROP SCHEMA "Side A", side_b CASCADE;
    DROP ROLE side_owner"""


@pytest.fixture
def connection(stack: Stack) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(**stack.config.postgres.conninfo(), autocommit=True) as made:
        made.execute(SETUP)
        yield made
        made.execute(TEARDOWN)


@pytest.mark.parametrize(
    "change",
    [
        'DROP PUBLICATION "Source side"',
        'ALTER PUBLICATION "Source side" DROP TABLE "Side A".plain',
        "ALTER PUBLICATION \"Source side\" SET (publish = 'insert')",
        'ALTER PUBLICATION "Source side" SET (publish_via_partition_root = false)',
        'ALTER PUBLICATION "Source side" OWNER TO CURRENT_USER',
        'ALTER PUBLICATION "Source side" SET TABLE "Side A"."Order ""lines", "Side A".plain',
        'ALTER PUBLICATION "Source side" SET TABLES IN SCHEMA side_b',
    ],
)
def test_a_changed_publication_is_told_and_mended(
    connection: psycopg.Connection[Any], change: str
) -> None:
    """Every part of a definition comes back, under names that need quoting."""
    before = _publication(connection)
    connection.execute(change)
    told = differences(before, find_publication(connection, NAME))
    assert told
    assert recreate(connection, before) == told
    assert _publication(connection) == before
    assert recreate(connection, before) == [], "a second time there is nothing to do"


def test_publications_of_everything_come_back(connection: psycopg.Connection[Any]) -> None:
    before = _publication(connection)
    for wide in (
        replace(before, all_tables=True, tables=()),
        replace(before, schemas=("Side A", "side_b"), tables=()),
        replace(before, tables=()),
    ):
        assert recreate(connection, wide)
        assert _publication(connection) == wide


def test_a_slot_is_made_advanced_and_dropped(connection: psycopg.Connection[Any]) -> None:
    made = create_slot(connection, "source_side")
    assert (made.plugin, made.active, made.lost) == ("pgoutput", False, None)
    assert made.confirmed_flush_lsn
    connection.execute('INSERT INTO "Side A".plain VALUES (1)')
    row = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone()
    assert row is not None
    end = Lsn.parse(row[0])
    assert "behind" in str(behind(connection, "source_side", end))
    connection.execute("SELECT pg_replication_slot_advance('source_side', %s)", [str(end)])
    advanced = find_slot(connection, "source_side")
    assert advanced is not None
    assert advanced.confirmed_flush_lsn == end
    assert behind(connection, "source_side", end) is None
    assert Slot.of(advanced.facts()) == advanced
    drop_slot(connection, "source_side")
    assert find_slot(connection, "source_side") is None
    with pytest.raises(ServerError, match="has no logical slot 'source_side'"):
        drop_slot(connection, "source_side")


def test_a_slot_that_exists_is_not_made_again(connection: psycopg.Connection[Any]) -> None:
    create_slot(connection, "source_side")
    with pytest.raises(ServerError, match="already exists"):
        create_slot(connection, "source_side")
    drop_slot(connection, "source_side")


def _publication(connection: psycopg.Connection[Any]) -> Publication:
    found = find_publication(connection, NAME)
    assert found is not None
    return found
