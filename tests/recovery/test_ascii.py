"""A database that converts nothing: its bytes come back, and names are words, not bytes."""

import pytest

from pipeline.config import PipelineConfig, PostgresConfig
from pipeline.postgres.base import base_backup, row_digests
from pipeline.postgres.logical import logical
from pipeline.postgres.logical.locales import make_database
from pipeline.postgres.replay.targets import Target
from pipeline.postgres.server.session import connect
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks.structure import examine
from pipeline.runbooks.table import TableRecovery, new_restore
from tests.recovery.history import SOON, Source
from tests.recovery.museum import in_database

# letters of two encodings, as applications of many years leave them
ROWS = """
create table letters (id int primary key, word text);
create table "Größe" (id int primary key);
insert into letters select 1, convert_from('\\xe4f6'::bytea, 'SQL_ASCII');
insert into letters values (2, 'größer'), (3, 'plain');
comment on table letters is 'größer';
"""
DIGEST = "select md5(string_agg(id || word, ',' order by id)) from letters"


@pytest.fixture
def ascii_config(source: Source) -> PipelineConfig:
    source.run("create database letters encoding 'SQL_ASCII' locale 'C' template template0")
    config = in_database(source.config, "letters")
    with connect(config.postgres) as connection:
        connection.execute(ROWS.encode())
    return config


def held(postgres: PostgresConfig) -> object:
    with connect(postgres, autocommit=True) as connection:
        return connection.execute(DIGEST).fetchone()


def test_a_dump_brings_its_bytes_back(ascii_config: PipelineConfig, repository: Repository) -> None:
    backup = logical.take(ascii_config, repository)
    assert 'table public."Größe"' in backup.manifest.facts["objects"]
    again = in_database(ascii_config, "again").postgres
    with connect(ascii_config.postgres, autocommit=True) as connection:
        make_database(connection, "again", backup)
        assert "letters" in examine(connection, ascii_config.postgres, lambda _: None)["databases"]
    logical.restore(backup, again)
    assert held(again) == held(ascii_config.postgres)
    assert row_digests.take(ascii_config.postgres, SOON).rows == 3


def test_a_table_comes_back_with_its_bytes(ascii_config: PipelineConfig) -> None:
    before = held(ascii_config.postgres)
    base_backup.take(ascii_config, Repository(FolderStore(ascii_config.repository.path)))
    with connect(ascii_config.postgres, autocommit=True) as connection, connection.transaction():
        row = connection.execute("select pg_current_xact_id()::text").fetchone()
        assert row is not None
        connection.execute("delete from letters where id < 3")
    target = Target.parse(f"before:xid:{row[0]}")
    journal = new_restore(ascii_config)
    TableRecovery(ascii_config, target, ["letters"], journal, topics=False).run()
    assert held(ascii_config.postgres) == before
