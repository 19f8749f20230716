"""A database that is made for a dump sorts as the dumped one did; one schema comes alone."""

from dataclasses import replace

import pytest

from fixtures.stacks.versions import since
from pipeline.config import PipelineConfig, PostgresConfig
from pipeline.errors import ConfigError, RestoreError
from pipeline.postgres.logical import logical
from pipeline.postgres.logical.catalogue import catalogue
from pipeline.postgres.logical.locales import make_database
from pipeline.repository.sets import Repository
from tests.recovery.museum import connect, in_database


def test_a_database_is_made_with_the_locale_provider_of_the_dumped_one(
    museum: PipelineConfig, repository: Repository
) -> None:
    made = "select datlocprovider::text, datlocale from pg_database where datname = 'made'"
    since(17, "the provider builtin")
    with connect(museum.postgres) as connection:
        connection.execute(
            "create database sorted template template0"
            " locale_provider builtin builtin_locale 'C.UTF-8'"
        )
        try:
            backup = logical.take(in_database(museum, "sorted"), repository)
            make_database(connection, "made", backup)
            assert connection.execute(made).fetchone() == ("b", "C.UTF-8")
            into = in_database(museum, "made").postgres
            assert logical.restore(backup, into).other == ()
        finally:
            connection.execute("drop database if exists made")
            connection.execute("drop database sorted")


def test_a_locale_provider_that_the_server_does_not_know_is_refused(
    museum: PipelineConfig, repository: Repository
) -> None:
    """Another one in its place would sort otherwise, and every row would be there."""
    backup = logical.take(museum, repository)
    facts = {**backup.manifest.facts, "provider": "i", "locale": "de-u-co-phonebk"}
    manifest = backup.manifest.model_copy(update={"facts": facts})
    told = r"LOCALE_PROVIDER icu, ICU_LOCALE de-u-co-phonebk: ICU is not supported"
    with connect(museum.postgres) as connection:
        with pytest.raises(RestoreError, match=told):
            make_database(connection, "made", replace(backup, manifest=manifest))
        found = connection.execute("select from pg_database where datname = 'made'").rowcount
    assert found == 0


def test_one_schema_of_a_whole_dump_comes_back_with_its_rows(
    museum: PipelineConfig, repository: Repository, empty: PostgresConfig
) -> None:
    with connect(museum.postgres) as connection:
        connection.execute('grant usage on schema "Mixed Case" to keeper')
        backup = logical.take(museum, repository)
    proof = logical.restore(backup, empty, schema="Mixed Case")
    assert (proof.tables, proof.rows, proof.other) == (1, 4, ())
    with connect(empty) as connection:
        found = catalogue(connection)
    noted = backup.manifest.facts["catalogue"]
    assert found["schema Mixed Case"] == noted["schema Mixed Case"]
    assert not any("works" in name for name in found)
    with pytest.raises(ConfigError, match="--schema nowhere: the backup holds no such schema"):
        logical.restore(backup, empty, schema="nowhere")


def test_a_schema_that_needs_another_one_is_refused(
    museum: PipelineConfig, repository: Repository, empty: PostgresConfig
) -> None:
    with connect(museum.postgres) as connection:
        connection.execute("create schema needy; create table needy.one (mood public.mood)")
        backup = logical.take(museum, repository)
        connection.execute("drop schema needy cascade")
    with pytest.raises(
        RestoreError, match=r'nothing was restored: .*(?s:.*)"public.mood" does not'
    ):
        logical.restore(backup, empty, schema="needy")
    logical.restore(backup, empty, schema="public")
