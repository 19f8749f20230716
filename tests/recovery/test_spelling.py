"""Definitions that PostgreSQL spells in other words after a load are the same definitions."""

from collections.abc import Iterator

import psycopg
import pytest

from pipeline.config import PipelineConfig, PostgresConfig
from pipeline.errors import ConfigError
from pipeline.postgres.history.tablefiles import Table
from pipeline.postgres.logical import logical
from pipeline.postgres.logical.catalogue import catalogue, differences, same
from pipeline.postgres.logical.relations import family, family_if_there, foreign_keys
from pipeline.repository.sets import Repository
from tests.recovery.museum import connect, in_database
from tests.recovery.orchard import Orchard

SPELLED = """
create table bills (
    id int primary key, status varchar(20) check (status in ('new', 'paid (late)')), a int, b int,
    urgent bool default ('new'::varchar in ('new', 'paid')),
    open bool generated always as (status in ('new', 'sent')) stored,
    check (a between 1 and 5 and b > 0));
create index bills_open on bills (id) where status in ('new', 'sent');
alter table bills enable row level security;
create policy few on bills using (status in ('new', 'paid') and (a between 1 and 5 and b > 0));
create function seen() returns trigger language plpgsql as 'begin return new; end';
create trigger seen before update on bills for each row
    when (new.status in ('new', 'paid')) execute function seen();
create publication spelled for table bills where (id between 1 and 5 and id > 0);
insert into bills values (1, 'new', 2, 3);
"""
STATUS = "constraint bills_status_check on public.bills"
LEFT_OUT = """
create role other_owner;
create schema tools;
create extension pageinspect schema tools;
create table tools.known (id int primary key check (id > 0));
create view tools.seen as select * from tools.known;
alter view tools.seen owner to other_owner;
alter extension pageinspect add table tools.known;
alter extension pageinspect add view tools.seen;
create table tools.mine (n int);
insert into tools.mine values (1), (1);
create table parted (id int primary key) partition by range (id);
create table parted_one partition of parted for values from (0) to (5);
create table parted_two partition of parted for values from (5) to (9);
create table child (id int references parted);
"""


@pytest.fixture
def spelled(museum: PipelineConfig) -> Iterator[PipelineConfig]:
    config = in_database(museum, "spelled")
    with connect(museum.postgres) as connection:
        connection.execute("create database spelled")
        try:
            yield config
        finally:
            connection.execute("drop database spelled")
            connection.execute("drop role if exists other_owner")


def test_a_sound_database_comes_back_without_a_word(
    spelled: PipelineConfig, repository: Repository, empty: PostgresConfig
) -> None:
    with connect(spelled.postgres) as connection:
        connection.execute(SPELLED.encode())
    backup = logical.take(spelled, repository)
    assert logical.restore(backup, empty).other == ()
    noted = backup.manifest.facts["catalogue"]
    with connect(empty) as connection:
        found = catalogue(connection)
        assert found[STATUS] != noted[STATUS], "written the same: nothing is proven here"
        connection.execute(
            "alter table bills drop constraint bills_status_check;"
            "alter table bills add constraint bills_status_check"
            " check (status in ('new', 'paid late'))"
        )
        told = dict(differences(noted, catalogue(connection)))
    assert list(told) == [STATUS]


def test_a_definition_is_the_same_but_for_its_spelling() -> None:
    """Quoted text is not spelling."""
    name = "constraint one on public.bills"
    assert same(name, "CHECK (((a)::numeric(8,2)) > 'x'::text[])", "CHECK (a > 'x')")
    assert not same(name, "CHECK (a > 'x::text')", "CHECK (a > 'x')")
    assert not same(name, "CHECK (a > 'x y')", "CHECK (a > 'xy')")
    assert not same(name, "CHECK (a > 5)", "CHECK (a >= 5)")
    assert not same("relation public.bills", "r p", "rp")


def test_what_no_dump_brings_is_not_missed(
    spelled: PipelineConfig, repository: Repository, empty: PostgresConfig
) -> None:
    """Members of an extension, an index that is not valid, and keys that PostgreSQL named."""
    with connect(spelled.postgres) as connection:
        connection.execute(LEFT_OUT.encode())
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("create unique index concurrently broken on tools.mine (n)")
        assert not any("tools.known" in name for name in catalogue(connection))
    backup = logical.take(spelled, repository)
    assert logical.restore(backup, empty).other == ()


def test_one_schema_that_holds_an_extension_comes_back(
    spelled: PipelineConfig, repository: Repository, empty: PostgresConfig
) -> None:
    with connect(spelled.postgres) as connection:
        connection.execute(LEFT_OUT.encode())
    proof = logical.restore(logical.take(spelled, repository), empty, schema="tools")
    assert (proof.tables, proof.other) == (1, ())


def test_a_dropped_table_with_such_definitions_is_made_again(orchard: Orchard) -> None:
    orchard.run(SPELLED)
    target = orchard.damage("drop table bills")
    recovery = orchard.recovery(target, "bills")
    recovery.run()
    assert recovery.done["apply"]["otherwise"] == []
    assert orchard.run("select status from bills") == "new"


def test_the_proof_leaves_the_search_path_of_its_caller(museum: PipelineConfig) -> None:
    with connect(museum.postgres) as connection, connection.transaction():
        connection.execute("set local search_path = public")
        catalogue(connection)
        foreign_keys(connection, [])
        assert connection.execute("show search_path").fetchone() == ("public",)


NAMED = """
create table "Bills of a Day" (n int);
create table bills (n int);
create table "Receipts" (n int);
create table receipts (n int);
create schema "Other";
create table "Other"."Bills of a Night" (n int);
create table "Other".bills (n int);
create table "Other"."Twice" (n int);
create table "Other".gone (n int);
create table "Twice" (n int);
"""


@pytest.mark.parametrize(
    ("table", "meant"),
    [
        ("Bills of a Day", ("public", "Bills of a Day")),
        ('"Bills of a Day"', ("public", "Bills of a Day")),
        ("Other.Bills of a Night", ("Other", "Bills of a Night")),
        ('"Other"."Bills of a Night"', ("Other", "Bills of a Night")),
        ("bills", ("public", "bills")),  # as SQL finds it, by the search path
        ("Bills", ("public", "bills")),
        ("Other.bills", ("Other", "bills")),
        ('"Receipts"', ("public", "Receipts")),
        ("receipts", ("public", "receipts")),
        ("Receipts", None),
        ("Twice", ("public", "Twice")),
        ("Other.Twice", ("Other", "Twice")),
    ],
)
def test_a_table_is_known_by_its_plain_name_where_that_means_no_other(
    spelled: PipelineConfig, table: str, meant: tuple[str, str] | None
) -> None:
    with connect(spelled.postgres) as connection:
        connection.execute(NAMED.encode())
        if meant is None:
            with pytest.raises(ConfigError, match=r"it may mean .* spell it as SQL does"):
                family(connection, table)
        else:
            (found,) = family(connection, table)
            assert found.place == meant
        assert family_if_there(connection, "gone") == []  # of public, where it was dropped


@pytest.mark.parametrize(
    "table", ["Bills", '"Bills"', "A b.Bills", '"A b"."Bills"', '"A b".Bills', 'A b."Bills"']
)
def test_find_knows_a_table_by_its_plain_name_and_as_sql_spells_it(table: str) -> None:
    assert table in Table(1, "A b", "Bills", None).spellings
