"""A logical backup comes back as it was, or it is refused, or it is none."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from typer.testing import CliRunner

from fixtures.stacks import toml
from fixtures.stacks.native import NativeStack
from pipeline.cli import app
from pipeline.config import PipelineConfig, PostgresConfig
from pipeline.errors import BackupError, ConfigError, RestoreError
from pipeline.postgres import logical
from pipeline.postgres.digests import differences, prepare, table_digests
from pipeline.repository import BackupSet, Repository
from pipeline.store import FolderStore, StoredObject, read
from tests.recovery.history import flipped

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
_NUMBERS = itertools.count(1)


class Interrupted(FolderStore):
    """A store during whose first block something happens."""

    def __init__(self, root: Path, strike: Callable[[], None]) -> None:
        super().__init__(root)
        self._strike = strike

    def put(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
        return super().put(key, self._struck(chunks))

    def _struck(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        blocks = iter(chunks)
        yield next(blocks)
        self._strike()
        yield from blocks


def connect(postgres: PostgresConfig) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(**postgres.conninfo(), autocommit=True)


def in_database(config: PipelineConfig, name: str) -> PipelineConfig:
    postgres = config.postgres.model_copy(update={"dbname": name})
    return config.model_copy(update={"postgres": postgres})


@pytest.fixture(scope="module")
def museum(breakable: NativeStack) -> PipelineConfig:
    """A database with one of everything that a dump can lose."""
    with connect(breakable.config.postgres) as connection:
        connection.execute(f"create database {DATABASE}".encode())
    config = in_database(breakable.config, DATABASE)
    with connect(config.postgres) as connection:
        connection.execute(SCHEMA.encode())
    return config


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(FolderStore(tmp_path / "repository"))


@pytest.fixture
def empty(museum: PipelineConfig) -> Iterator[PostgresConfig]:
    """A new database beside it."""
    name = f"restored_{next(_NUMBERS)}"
    with connect(museum.postgres) as connection:
        connection.execute(f"create database {name} template template0".encode())
        yield in_database(museum, name).postgres
        connection.execute(f"drop database {name} with (force)".encode())


def held(postgres: PostgresConfig) -> int:
    """Number of relations that a user made."""
    with connect(postgres) as connection:
        row = connection.execute(
            "select count(*) from pg_class where relnamespace = 'public'::regnamespace"
        ).fetchone()
    assert row is not None
    return int(str(row[0]))


def test_a_whole_database_comes_back_with_every_object_and_equal_digests(
    museum: PipelineConfig, repository: Repository, empty: PostgresConfig
) -> None:
    backup = logical.take(museum, repository)
    facts = backup.manifest.facts
    assert facts["scope"] == "database"
    assert len(facts["objects"]) > 30
    rows = {table["name"]: table["rows"] for table in facts["tables"]}
    assert rows == {
        "artists": 50,
        "works": 500,
        'We.ird "x" name': 4,
        "hints": 1,
        "old_visits": 1,
        "visits_2025": 30,
        "visits_rest": 30,
    }
    logical.restore(backup, empty)
    with connect(empty) as connection:
        assert list(differences(connection, facts)) == []
        with connection.transaction():
            prepare(connection)
            assert table_digests(connection) == facts["tables"]


def test_roles_come_beside_a_whole_database(museum: PipelineConfig, repository: Repository) -> None:
    backup = logical.take(museum, repository)
    (key,) = (entry.key for entry in backup.manifest.objects if entry.key.endswith(".sql"))
    assert b"CREATE ROLE keeper" in read(repository.store, key)


def test_what_is_committed_after_the_snapshot_is_in_neither_dump_nor_digest(
    museum: PipelineConfig, repository: Repository, empty: PostgresConfig
) -> None:
    def write(_: str) -> None:
        with connect(museum.postgres) as connection:
            connection.execute("insert into artists (name) values ('late') on conflict do nothing")

    backup = logical.take(museum, repository, write)  # told before pg_dump starts
    try:
        logical.restore(backup, empty)
        with connect(empty) as connection:
            assert connection.execute("select from artists where name = 'late'").rowcount == 0
        with connect(museum.postgres) as connection:
            (told,) = differences(connection, backup.manifest.facts)
        assert told.startswith("table public.artists: expected 50 rows")
    finally:
        with connect(museum.postgres) as connection:
            connection.execute("delete from artists where name = 'late'")


def test_chosen_tables_bring_their_children_and_what_belongs_to_them(
    museum: PipelineConfig, repository: Repository, empty: PostgresConfig
) -> None:
    chosen = ("visits", '"Mixed Case"."We.ird ""x"" name"')
    backup = logical.take(museum, repository, tables=chosen)
    facts = backup.manifest.facts
    assert facts["scope"] == "tables"
    names = [table["name"] for table in facts["tables"]]
    assert names == ['We.ird "x" name', "visits_2025", "visits_rest"]
    assert [entry.key.rpartition("/")[2] for entry in backup.manifest.objects] == [logical.DUMP]
    with connect(empty) as connection:
        connection.execute('create schema "Mixed Case"')  # a table does not bring its schema
    logical.restore(backup, empty)
    assert held(empty) == 3


def test_a_table_comes_back_with_its_sequence_indexes_and_constraints(
    museum: PipelineConfig, repository: Repository, empty: PostgresConfig
) -> None:
    backup = logical.take(museum, repository, tables=["artists"])
    objects = backup.manifest.facts["objects"]
    for name in (
        "sequence public.artists_id_seq",
        "index public.artists_name_key",
        "policy everyone on public.artists",
        "table public.old_visits",
    ):
        assert name in objects
    assert not any("works" in name for name in objects)
    logical.restore(backup, empty)


def test_a_schema_comes_back_without_rows(
    museum: PipelineConfig, repository: Repository, empty: PostgresConfig
) -> None:
    backup = logical.take(museum, repository, schema_only=True)
    assert backup.manifest.facts["scope"] == "database, schema only"
    assert backup.manifest.facts["tables"] == []
    logical.restore(backup, empty)
    with connect(empty) as connection:
        assert connection.execute("select from works").rowcount == 0


@pytest.mark.parametrize("table", ["never", "known", "pub*", '"Artists"', "nowhere.artists"])
def test_a_table_that_is_not_there_is_refused_by_name(
    museum: PipelineConfig, repository: Repository, table: str
) -> None:
    with pytest.raises(ConfigError, match="there is no such table"):
        logical.take(museum, repository, tables=["artists", table])
    assert list(repository.store.list()) == []


@pytest.fixture
def damageable(museum: PipelineConfig, tmp_path: Path) -> tuple[BackupSet, Path]:
    backup = logical.take(museum, Repository(FolderStore(tmp_path)))
    (key,) = (e.key for e in backup.manifest.objects if e.key.endswith(logical.DUMP))
    return backup, tmp_path / key


def test_a_cut_dump_is_refused_before_the_server_sees_it(
    damageable: tuple[BackupSet, Path], empty: PostgresConfig
) -> None:
    """`pg_restore --list` takes it for whole."""
    backup, dump = damageable
    dump.write_bytes(dump.read_bytes()[: dump.stat().st_size * 6 // 10])
    with pytest.raises(RestoreError, match=rf"{logical.DUMP}: expected .*the backup is damaged"):
        logical.restore(backup, empty)
    assert held(empty) == 0


def test_one_flipped_bit_is_refused(
    damageable: tuple[BackupSet, Path], empty: PostgresConfig
) -> None:
    backup, dump = damageable
    flipped(dump, dump.stat().st_size // 2)
    with pytest.raises(RestoreError, match="the backup is damaged"):
        logical.restore(backup, empty)
    assert held(empty) == 0


def test_a_database_that_holds_something_is_never_restored_into(
    museum: PipelineConfig, repository: Repository
) -> None:
    backup = logical.take(museum, repository, tables=["works"])
    with pytest.raises(RestoreError, match=f"database {DATABASE} is not empty"):
        logical.restore(backup, museum.postgres)


def test_a_dump_whose_program_is_killed_is_none(museum: PipelineConfig, tmp_path: Path) -> None:
    def kill() -> None:
        (process,) = [c for c in psutil.Process().children() if c.name() == "pg_dump"]
        process.kill()

    with connect(museum.postgres) as connection:  # too much for the pipe to take at once
        connection.execute(
            "create table noise as select gen_random_uuid() from generate_series(1, 400000)"
        )
        try:
            interrupted = Repository(Interrupted(tmp_path, kill))
            with pytest.raises(BackupError, match="no backup was taken: pg_dump ended with"):
                logical.take(museum, interrupted)
        finally:
            connection.execute("drop table noise")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("update works set photo = set_byte(photo, 3, 7) where id = 77", "table public.works"),
        # two equal rows for two equal rows: digests by exclusive or would cancel out
        (
            'update "Mixed Case"."We.ird ""x"" name" set note = \'x\' where note = \'twice\'',
            "4 rows",
        ),
        ("update hints set word = null", "table public.hints"),
        ("drop trigger touched on works", "trigger touched on public.works is missing"),
        ("drop publication outside", "publication outside is missing"),
        ("drop view known", "view public.known is missing"),
        ("drop table hints", "table public.hints is missing"),
    ],
)
def test_what_is_not_as_it_was_is_named(
    museum: PipelineConfig, repository: Repository, change: str, told: str
) -> None:
    backup = logical.take(museum, repository)
    with (
        psycopg.connect(**museum.postgres.conninfo()) as connection,
        connection.transaction(force_rollback=True),
    ):
        connection.execute(change.encode())
        (found,) = differences(connection, backup.manifest.facts)
    assert told in found


def test_the_order_of_rows_and_the_settings_of_a_session_do_not_matter(
    museum: PipelineConfig, repository: Repository
) -> None:
    facts = logical.take(museum, repository).manifest.facts
    with psycopg.connect(**museum.postgres.conninfo()) as connection:
        connection.execute("set datestyle to german")
        connection.execute("set timezone to 'Asia/Tokyo'")
        connection.execute("set extra_float_digits to -3")
        with connection.transaction(force_rollback=True):
            connection.execute("create temp table kept as table visits_rest")
            connection.execute("delete from visits_rest")
            connection.execute("insert into visits_rest table kept order by who")
            assert list(differences(connection, facts)) == []


def test_the_command_prints_the_label(
    museum: PipelineConfig, breakable: NativeStack, tmp_path: Path
) -> None:
    place = museum.repository.model_copy(update={"path": tmp_path})
    configuration = tmp_path / "pipeline.toml"
    config = museum.model_copy(update={"repository": place})
    toml.write(config, configuration, password_file=breakable.password_file)
    arguments = ["backup", "logical", "--table", "artists", "--table", "works", "--schema-only"]
    told = CliRunner().invoke(app, [*arguments, "--config", str(configuration)])
    assert told.exit_code == 0, told.output
    backup = Repository(FolderStore(tmp_path)).get(told.output.split()[-1])
    assert backup.manifest.facts["scope"] == "tables, schema only"
