"""What a database is beside its rows comes back equal, or the difference is named."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from checks.check import Outcome
from checks.restored import LogicalRestore
from checks.rules.logical_restore import restores_every_row, restores_the_catalogue
from checks.subjects import LogicalBackup, SourceServer
from fixtures.faults import server
from fixtures.scratch import Material, Scratch
from pipeline.postgres.logical import logical
from pipeline.postgres.logical.catalogue import catalogue
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore

RICH = """
create role keeper;
create role clerk login in role keeper connection limit 3;
create role deputy in role keeper admin clerk;
grant keeper to deputy with admin option;
create role "a guest; of" noinherit;
grant keeper to "a guest; of" granted by deputy;
alter role clerk set work_mem = '7MB';
create schema "Mixed Case" authorization keeper;
create type shop.mood as enum ('calm', 'upset');
create table shop.works (id serial primary key, mood shop.mood default 'calm', note text,
    doubled int generated always as (1 + 1) stored, unique (mood, note));
alter table shop.works owner to keeper;
alter sequence shop.works_id_seq owner to keeper;
grant select (note) on shop.works to clerk;
grant all on shop.customers to keeper with grant option;
revoke all on shop.orders from postgres;
grant all on shop.orders to postgres;
drop schema public;
create schema public;
revoke usage on schema public from public;
alter default privileges in schema shop grant select on tables to keeper;
alter default privileges revoke execute on functions from public;
create function shop.touch() returns trigger language plpgsql security definer
    set search_path = shop as 'begin return new; end';
revoke execute on function shop.touch() from public;
create trigger touched before update on shop.works for each row execute function shop.touch();
alter table shop.works disable trigger touched;
alter table shop.works enable row level security;
alter table shop.works force row level security;
create policy few on shop.works as restrictive for select to clerk using (note <> '');
create view shop.known with (security_barrier) as select name from shop.customers;
create materialized view shop.counted as select count(*) from shop.orders;
create table shop.visits (day date not null, who text) partition by range (day);
create table shop.visits_rest partition of shop.visits default;
create unlogged table shop.hints (word text) with (fillfactor = 50);
create function shop.heard() returns event_trigger language plpgsql as 'begin end';
create event trigger heard on ddl_command_end when tag in ('CREATE TABLE')
    execute function shop.heard();
create publication outside for table shop.works (id, note) where (id > 3);
create extension pageinspect schema "Mixed Case";
alter database postgres set statement_timeout = '1h';
alter role clerk in database postgres set lock_timeout = '1min';
comment on table shop.works is 'nothing depends on it';
"""


@dataclass(frozen=True)
class Rich:
    """A database with one of everything, and a logical backup of it."""

    source: Scratch[SourceServer]
    restored: LogicalRestore


@pytest.fixture(scope="module")
def rich(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rich]:
    with material.scratch(SourceServer) as source:
        server.execute(source, *(part for part in RICH.split(";\n") if part.strip()))
        logical.take(source.config, Repository(FolderStore(source.repository)))
        place = Path(tmp_path_factory.mktemp("trial"))
        for folder in (place, *place.parents[:3]):
            folder.chmod(0o755)  # the server's own user passes through
        restored = LogicalRestore(LogicalBackup.of(source.config), place)
        yield Rich(source, restored)
        restored.close()


def test_one_of_everything_comes_back_as_it_was(rich: Rich) -> None:
    noted = rich.restored.dump.facts["catalogue"]
    assert len(noted) > 50
    found = restores_the_catalogue.run(lambda: rich.restored)
    assert (found.outcome, found.problems, found.trouble) == (Outcome.PASS, (), None)


def test_a_schema_public_of_its_own_is_found_in_the_one_of_initdb(rich: Rich) -> None:
    """The source's was made anew, so it is a user's object; the new server has it from initdb."""
    assert "schema public" in rich.restored.dump.facts["objects"]
    found = restores_every_row.run(lambda: rich.restored)
    assert (found.outcome, found.problems, found.trouble) == (Outcome.PASS, (), None)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("alter table shop.works owner to postgres", "relation shop.works"),
        ("alter role clerk superuser", "role clerk"),
        ("revoke keeper from clerk", "role clerk"),
        ("revoke select (note) on shop.works from clerk", "column shop.works.note"),
        ("drop policy few on shop.works", "policy few on shop.works"),
        ("alter table shop.works disable row level security", "relation shop.works"),
        ("alter role clerk reset work_mem", "setting of clerk"),
        ("alter database postgres reset all", "setting of postgres"),
        ("drop event trigger heard", "event trigger heard"),
        ("drop extension pageinspect", "extension pageinspect"),
        ("alter publication outside set (publish = 'insert')", "publication outside"),
        (
            "alter publication outside set table shop.works (id, note) where (id > 4)",
            "publication outside of shop.works",
        ),
        ("alter table shop.works enable trigger touched", "trigger touched on shop.works"),
        ("alter function shop.touch() security invoker", "function shop.touch()"),
        ("alter table shop.works alter mood set default 'upset'", "default of shop.works.mood"),
        ("alter table shop.orders alter note drop not null", "column shop.orders.note"),
    ],
)
def test_what_differs_is_named(rich: Rich, change: str, named: str) -> None:
    """Each change is made in the source, in a transaction that is rolled back."""
    noted = rich.restored.dump.facts["catalogue"]
    with (
        psycopg.connect(**rich.source.config.postgres.conninfo()) as connection,
        connection.transaction(force_rollback=True),
    ):
        connection.execute(change.encode())
        found = catalogue(connection)
    assert named in {name for name in noted if found.get(name) != noted[name]}
