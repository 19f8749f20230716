"""A database with one of everything that a dump can lose."""

from pathlib import Path

import psycopg

from fixtures.stacks import toml
from fixtures.stacks.native import NativeStack
from pipeline.config import PipelineConfig, PostgresConfig
from pipeline.repository import marker

DATABASE = "museum"
SCHEMA = """
create role keeper;
create schema "Mixed Case";
create type mood as enum ('calm', 'upset');
create domain positive as int check (value > 0);
create table artists (id bigint generated always as identity primary key, name text unique);
create table works (id serial primary key, artist bigint references artists, mood mood,
    size positive, t text default 'a column named like an alias', seen timestamptz, weight float8,
    price numeric, photo bytea, facts jsonb, took interval, gone int,
    doubled int generated always as (size * 2) stored);
alter table works drop column gone;
create index on works (artist) where size > 3;
create table "Mixed Case"."We.ird ""x"" name" (note text);
create table visits (day date, who text) partition by range (day);
create table visits_2025 partition of visits for values from ('2025-01-01') to ('2026-01-01');
create table visits_rest partition of visits default;
create table old_visits () inherits (artists);
create unlogged table hints (word text);
create view known as select name from artists;
create materialized view counted as select artist, count(*) from works group by 1;
create function touch() returns trigger language plpgsql as 'begin return new; end';
create trigger touched before update on works for each row execute function touch();
alter table artists enable row level security;
create policy everyone on artists using (true);
create publication outside for table works;
alter table visits owner to keeper;
grant select on works to keeper;
insert into artists (name) select 'artist ' || n from generate_series(1, 50) n;
insert into works (artist, mood, size, seen, weight, price, photo, facts, took)
    select 1 + n % 50, 'calm', n, timestamptz '2026-01-01 00:00Z' + n * interval '1 s',
           n / 3.0, n / 7.0, decode(md5(n::text), 'hex'), jsonb_build_object('n', n),
           n * interval '1 min' from generate_series(1, 500) n;
insert into "Mixed Case"."We.ird ""x"" name" values ('twice'), ('twice'), (null), ('');
insert into visits select date '2025-12-01' + n, md5(n::text) from generate_series(1, 60) n;
insert into old_visits (id, name) overriding system value values (1, 'inherited');
insert into hints values ('unlogged');
refresh materialized view counted;
"""


def connect(postgres: PostgresConfig) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(**postgres.conninfo(), autocommit=True)


def in_database(config: PipelineConfig, name: str) -> PipelineConfig:
    postgres = config.postgres.model_copy(update={"dbname": name})
    return config.model_copy(update={"postgres": postgres})


def configured(
    config: PipelineConfig, folder: Path, stack: NativeStack
) -> tuple[PipelineConfig, list[str]]:
    """The configuration with a repository of its own, and the option that names its file."""
    marker.make(str(folder))
    place = config.repository.model_copy(update={"path": folder})
    own, file = config.model_copy(update={"repository": place}), folder / "pipeline.toml"
    toml.write(own, file, password_file=stack.password_file)
    return own, ["--config", str(file)]


def held(postgres: PostgresConfig) -> int:
    """Number of relations that a user made."""
    with connect(postgres) as connection:
        row = connection.execute(
            "select count(*) from pg_class where relnamespace = 'public'::regnamespace"
        ).fetchone()
    assert row is not None
    return int(str(row[0]))
