"""A logical backup comes back as it was, proven, or nothing of it does."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fixtures.stacks.native import NativeStack
from fixtures.stacks.versions import major
from pipeline.cli import app
from pipeline.config import PipelineConfig, PostgresConfig
from pipeline.errors import RestoreError
from pipeline.postgres.base.digests import differences, prepare, table_digests
from pipeline.postgres.logical import logical
from pipeline.postgres.logical.proof import prove
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore
from tests.recovery.history import flipped
from tests.recovery.museum import DATABASE, configured, connect, held


def test_a_whole_database_comes_back_with_every_object_and_equal_digests(
    museum: PipelineConfig, repository: Repository, empty: PostgresConfig
) -> None:
    backup = logical.take(museum, repository)
    facts = backup.manifest.facts
    assert facts["scope"] == "database"
    assert len(facts["objects"]) > (30 if major() >= 18 else 25)  # NOT NULL is one since then
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


def test_a_restore_says_what_it_examined(
    museum: PipelineConfig, repository: Repository, empty: PostgresConfig
) -> None:
    proof = logical.restore(logical.take(museum, repository), empty)
    told = "\n".join(proof.lines())
    assert "7 tables with 616 rows by digest, 2 sequences; amcheck: 4 indexes" in told
    assert "NOT examined: indexes other than B-trees" in told
    with connect(empty) as connection:  # nothing of the examination stays
        assert connection.execute("select from pg_extension").rowcount == 1


def test_without_amcheck_the_structure_is_said_to_be_unexamined(
    museum: PipelineConfig, repository: Repository, empty: PostgresConfig
) -> None:
    with connect(empty) as connection:
        connection.execute("create schema pipeline_amcheck")  # the place is taken
    proof = logical.restore(logical.take(museum, repository), empty)
    assert proof.indexes == 0
    assert proof.not_examined[0].startswith("structure: amcheck is not at hand")


def test_other_grants_than_the_backup_noted_are_refused(
    museum: PipelineConfig, repository: Repository, empty: PostgresConfig
) -> None:
    """A new database may have default privileges: they are given beside those of the dump."""
    backup = logical.take(museum, repository)
    with connect(empty) as connection:
        connection.execute("alter default privileges grant select on tables to keeper")
    told = r"relation public\.artists: expected '.*', found '.*keeper=r"
    with pytest.raises(RestoreError, match=told):
        logical.restore(backup, empty)


def test_what_a_dump_does_not_bring_is_told(
    museum: PipelineConfig, repository: Repository, empty: PostgresConfig
) -> None:
    prepared = f"alter database {empty.dbname} set statement_timeout = '1h'"
    with connect(museum.postgres) as connection:
        for change in (f"database {DATABASE} set statement_timeout = '1h'", "role keeper login"):
            connection.execute(f"alter {change}".encode())
        backup = logical.take(museum, repository)
        connection.execute("alter role keeper nologin")
        connection.execute(f"alter database {DATABASE} reset all".encode())
        connection.execute(prepared.encode())
    proof = logical.restore(backup, empty)
    assert [told.partition(":")[0] for told in proof.other] == ["role keeper"]
    with connect(empty) as connection:
        connection.execute(f"alter database {empty.dbname} reset all".encode())
        other = prove(connection, backup.manifest.facts).other
    assert f"setting of {DATABASE}: it did not come back" in other


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("alter sequence works_id_seq restart with 7", "works_id_seq would give 500 again"),
        (
            "alter table works add constraint small check (size < 9000) not valid",
            "constraint small on public.works is not validated",
        ),
    ],
)
def test_what_is_unsound_is_blamed_on_the_restore_only_if_the_source_was_sound(
    museum: PipelineConfig,
    repository: Repository,
    empty: PostgresConfig,
    change: str,
    told: str,
) -> None:
    sound = logical.take(museum, repository)
    with connect(museum.postgres) as connection:
        connection.execute(change.encode())
        backup = logical.take(museum, repository)
        connection.execute("alter table works drop constraint if exists small")
        connection.execute("select setval('works_id_seq', 500)")
    assert told in "\n".join(backup.manifest.facts["unsound"])
    logical.restore(backup, empty)
    with connect(empty) as connection, pytest.raises(RestoreError, match=told):
        prove(connection, sound.manifest.facts)


def test_a_damaged_index_is_named(
    museum: PipelineConfig, repository: Repository, empty: PostgresConfig
) -> None:
    """A key that its index has in a wrong place is found by nobody, and every row is there."""
    backup = logical.take(museum, repository)
    logical.restore(backup, empty)
    with connect(empty) as connection:
        connection.execute("set allow_system_table_mods = on")
        connection.execute(
            "update pg_index set indoption = '1' where indexrelid = 'artists_name_key'::regclass"
        )
        with pytest.raises(RestoreError, match=r"index .*artists_name_key"):
            prove(connection, backup.manifest.facts)


def test_the_commands_restore_into_a_database_that_they_make(
    museum: PipelineConfig, breakable: NativeStack, tmp_path: Path
) -> None:
    config, told_config = configured(museum, tmp_path, breakable)
    options = [*told_config, "--into", "made", "--create"]
    logical.take(config, Repository(FolderStore(tmp_path)))
    try:
        told = CliRunner().invoke(app, ["restore", "database", *options])
        assert told.exit_code == 0, told.output
        assert "proven: " in told.output
        again = CliRunner().invoke(app, ["restore", "database", *options[:-1]])
        assert "database made is not empty" in str(again.exception)
        with connect(museum.postgres) as connection:
            connection.execute("drop database made")
        told = CliRunner().invoke(app, ["restore", "schema", *options])
        assert told.exit_code == 0, told.output
        assert "NOT examined: rows: the backup has none" in told.output
    finally:
        with connect(museum.postgres) as connection:
            connection.execute("drop database if exists made")


def test_a_schema_public_that_a_user_made_again_is_not_missed(
    museum: PipelineConfig, repository: Repository, empty: PostgresConfig
) -> None:
    """A new database has one as well: found when a dump of such a database was restored."""
    with connect(empty) as connection:
        connection.execute("drop schema public; create schema public; create table one (id int)")
    config = museum.model_copy(update={"postgres": empty})
    backup = logical.take(config, repository)
    with connect(museum.postgres) as connection:
        connection.execute("create database again template template0")
        try:
            logical.restore(backup, empty.model_copy(update={"dbname": "again"}))
        finally:
            connection.execute("drop database again")
