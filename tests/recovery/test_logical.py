"""A logical backup holds what was there at one moment, or it is none."""

from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from fixtures.stacks.native import NativeStack
from pipeline.cli import app
from pipeline.config import PipelineConfig, PostgresConfig
from pipeline.errors import BackupError, ConfigError
from pipeline.postgres.base.digests import differences
from pipeline.postgres.logical import logical
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore, read
from tests.recovery.interrupted import Interrupted
from tests.recovery.museum import configured, connect, held


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


@pytest.mark.parametrize("table", ["never", "known", "pub*", '"Artists"', "nowhere.artists"])
def test_a_table_that_is_not_there_is_refused_by_name(
    museum: PipelineConfig, repository: Repository, table: str
) -> None:
    with pytest.raises(ConfigError, match="there is no such table"):
        logical.take(museum, repository, tables=["artists", table])
    assert list(repository.store.list()) == []


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


def test_a_dump_without_the_roles_beside_it_is_none(
    museum: PipelineConfig, empty: PostgresConfig, repository: Repository
) -> None:
    """The dump is whole by then; who may not read the hashes of passwords learns how to go on."""
    secret = sql.Literal(empty.secret())
    denied = museum.model_copy(update={"postgres": empty.model_copy(update={"user": "reader"})})
    with connect(empty) as connection:
        connection.execute(sql.SQL("create role reader login password {}").format(secret))
        try:
            with pytest.raises(BackupError, match=r"pg_dumpall ended(.|\n)*--no-role-passwords"):
                logical.take(denied, repository)
            assert list(repository.store.list()) == []
            connection.execute("grant pg_read_all_data to reader")
            logical.take(denied, repository)
        finally:
            connection.execute("drop role reader")
    assert len(repository.labels()) == 1


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
    _, options = configured(museum, tmp_path, breakable)
    arguments = ["backup", "logical", "--table", "artists", "--table", "works", "--schema-only"]
    told = CliRunner().invoke(app, [*arguments, *options])
    assert told.exit_code == 0, told.output
    backup = Repository(FolderStore(tmp_path)).get(told.output.split()[-1])
    assert backup.manifest.facts["scope"] == "tables, schema only"
