"""No false alarm on a source that moves on, as sources do between two backups."""

from collections.abc import Iterator

import pytest
from psycopg import sql

from checks import rules
from checks.check import Outcome
from checks.subjects import SourceServer
from fixtures.faults import server, sources
from fixtures.scratch import Material, Scratch

pytestmark = pytest.mark.stack

PARTITIONED = (
    "create table shop.days (day int primary key) partition by list (day)",
    "create table shop.day_1 partition of shop.days for values in (1)",
    "create table shop.day_2 partition of shop.days for values in (2)",
    'create table shop."Odd on ""name" ("a.b" text primary key, day int references shop.days)',
    "alter table shop.customers add check (id > 0) not valid",
)
GROWN = (
    "alter table shop.customers add email text, add unique (email)",
    "alter table shop.customers validate constraint customers_id_check",
    "alter table shop.customers replica identity full",
    "alter table shop.orders alter note drop not null",
    'alter table shop."Odd on ""name" rename to plain',
    "create table shop.baskets (id bigint primary key)",
    "alter table shop.days detach partition shop.day_1",
    "drop table shop.day_1",
)


@pytest.fixture
def source(material: Material) -> Iterator[Scratch[SourceServer]]:
    with material.scratch(SourceServer) as scratch:
        yield scratch


def outcome(source: Scratch[SourceServer], check: str) -> tuple[Outcome, object]:
    found = rules.CATALOGUE[check].run(lambda: source.copy)
    return found.outcome, found.problems or found.trouble


def test_a_schema_that_grew_raises_no_alarm(source: Scratch[SourceServer]) -> None:
    """Columns, tables and rules were added, one was renamed, a day went as days do."""
    server.execute(source, *PARTITIONED)
    sources.back_up_logical(source)
    server.execute(source, *GROWN)
    assert outcome(source, "postgres.columns-and-keys-as-backed-up") == (Outcome.PASS, None)


@pytest.mark.parametrize("via_root", ["true", "false"])
def test_a_publication_that_gives_more_raises_no_alarm(
    source: Scratch[SourceServer], via_root: str
) -> None:
    """Of a partitioned table, listed first, then of all tables; each has another owner."""
    name = sql.Identifier(source.config.cdc.publication)
    drop = sql.SQL("drop publication {}").format(name)
    listed = "create publication {} for table shop.days, shop.customers (id) where (id > 5) "
    via = sql.SQL("with (publish_via_partition_root = {})").format(sql.SQL(via_root))
    server.execute(source, *PARTITIONED, drop, sql.SQL(listed).format(name) + via)
    sources.back_up_base(source)
    carries = "cdc.publication-carries-every-change"
    assert outcome(source, carries) == (Outcome.PASS, None)
    every = sql.SQL("create publication {} for all tables ").format(name) + via
    owner = sql.SQL("alter publication {} owner to other").format(name)
    server.execute(source, "create role other superuser", drop, every, owner)
    assert outcome(source, carries) == (Outcome.PASS, None)
