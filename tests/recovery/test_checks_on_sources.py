"""No false alarm on a source that moves on, as sources do between two backups."""

import shutil
from collections.abc import Iterator

import pytest
from psycopg import sql

from checks import rules
from checks.check import Outcome
from checks.rules.cdc_connectors import heartbeats
from checks.subjects import SourceServer
from fixtures.faults import server, sources
from fixtures.scratch import Material, Scratch
from pipeline.postgres.logical.catalogue import catalogue

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


@pytest.mark.parametrize(
    ("published", "dropped"),
    [
        ("table shop.orders, shop.customers, shop.baskets", ("drop table shop.baskets",)),
        (
            "table shop.orders, shop.customers (id, name)",
            (
                "alter publication {} set table shop.orders, shop.customers (id)",
                "alter table shop.customers drop column name",
            ),
        ),
        (
            "table shop.orders, shop.customers, tables in schema brief",
            ("drop schema brief cascade",),
        ),
    ],
    ids=["table", "column", "schema"],
)
def test_what_was_dropped_need_not_be_published(
    source: Scratch[SourceServer], published: str, dropped: tuple[str, ...]
) -> None:
    """On purpose, after the backup; nothing of it is left to be published."""
    name = sql.Identifier(source.config.cdc.publication)
    made = ("create table shop.baskets (id int primary key)", "create schema brief")
    again = ("drop publication {}", "create publication {} for " + published)
    server.execute(source, *made, *(sql.SQL(one).format(name) for one in again))
    sources.back_up_base(source)
    server.execute(source, *(sql.SQL(one).format(name) for one in dropped))
    assert outcome(source, "cdc.publication-carries-every-change") == (Outcome.PASS, None)


def test_a_server_that_was_just_recovered_raises_no_alarm(source: Scratch[SourceServer]) -> None:
    """It has counted nothing as archived yet, and nothing waits to be."""
    server.execute(source, "select pg_stat_reset_shared('archiver')")
    assert outcome(source, "postgres.archiver-agrees-with-repository") == (Outcome.PASS, None)


def test_a_schema_with_capitals_raises_no_alarm(source: Scratch[SourceServer]) -> None:
    name = sql.Identifier(source.config.cdc.publication)
    add = sql.SQL('alter publication {} add table "Sales"."Order Lines"').format(name)
    server.execute(
        source,
        'create schema "Sales"',
        'create table "Sales"."Order Lines" ("Id" int primary key)',
        add,
    )
    sources.back_up_base(source)
    sources.back_up_logical(source)
    seen = {check.id: check.run(lambda: source.copy) for check in rules.CATALOGUE.on(SourceServer)}
    source.keep_up()
    assert [told for told in seen.items() if told[1].outcome is not Outcome.PASS] == []


def test_what_is_published_less_on_purpose_is_named_and_then_no_alarm(
    source: Scratch[SourceServer],
) -> None:
    """The next backup does not make it forgotten: older ones know what was published."""
    carries = rules.CATALOGUE["cdc.publication-carries-every-change"]
    name = sql.Identifier(source.config.cdc.publication)
    server.execute(source, sql.SQL("alter publication {} drop table shop.orders").format(name))
    sources.back_up_base(source)
    seen = carries.run(lambda: source.copy)
    assert [each.subject for each in seen.problems] == ["shop.orders"]
    assert "and is not: base-" in str(seen.problems[0].problem), "it names the backup"
    cdc = source.config.cdc.model_copy(update={"narrowed": ("shop.orders",)})
    meant = SourceServer(source.config.model_copy(update={"cdc": cdc}))
    assert carries.run(lambda: meant).outcome is Outcome.PASS


def test_a_role_that_may_only_log_in_can_run_every_check_of_the_source(
    source: Scratch[SourceServer],
) -> None:
    """As docs/quickstart.md has it: no right on any schema or table, and one function."""
    server.execute(source, "create role checker login")
    server.execute(source, "grant execute on function pg_ls_dir(text) to checker")
    postgres = source.config.postgres.model_copy(update={"user": "checker"})
    bare = SourceServer(source.config.model_copy(update={"postgres": postgres}))
    publication = source.config.cdc.publication
    with bare.connection() as connection:
        assert f"publication {publication} of shop.orders" in catalogue(connection)
    source.keep_up()
    seen = {check.id: check.run(lambda: bare) for check in rules.CATALOGUE.on(SourceServer)}
    assert [told for told in seen.items() if told[1].outcome is not Outcome.PASS] == []
    told = {
        "heartbeat.action.query": 'update shop."orders" set note = note where id = 1',
        "heartbeat.interval.ms": "1000",
        "publication.name": publication,
    }
    assert [each.problem for each in heartbeats(bare, "shop", told)] == [None, None]


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
    shutil.rmtree(source.repository / "sets" / "base")  # in which it gave more
    sources.back_up_base(source)
    carries = "cdc.publication-carries-every-change"
    assert outcome(source, carries) == (Outcome.PASS, None)
    every = sql.SQL("create publication {} for all tables ").format(name) + via
    owner = sql.SQL("alter publication {} owner to other").format(name)
    server.execute(source, "create role other superuser", drop, every, owner)
    assert outcome(source, carries) == (Outcome.PASS, None)
