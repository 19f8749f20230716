"""Large objects come back proven, or it is said that they did not."""

from collections.abc import Iterator

import pytest

from pipeline.config import PipelineConfig, PostgresConfig
from pipeline.errors import RestoreError
from pipeline.postgres.base import large_objects
from pipeline.postgres.logical import logical
from pipeline.postgres.logical.proof import prove
from pipeline.repository.sets import Repository
from tests.recovery.museum import connect

MADE = (
    "select lo_from_bytea(n, decode(repeat(md5(n::text), n), 'hex')) from generate_series(1,300) n",
    "select lo_put(7, 100000, 'behind a hole'), lo_put(8, 5000, decode(repeat('00', 3000), 'hex'))",
    "grant select on large object 9 to keeper; alter large object 10 owner to keeper",
)
# each is a lock until the end of its transaction
UNLINK = "select lo_unlink(oid) from (select oid from pg_largeobject_metadata limit 5000) o"


@pytest.fixture
def scans(museum: PipelineConfig) -> Iterator[PipelineConfig]:
    with connect(museum.postgres) as connection:
        for statement in MADE:
            connection.execute(statement.encode())
        yield museum
        while connection.execute(UNLINK).rowcount:
            pass


@pytest.mark.parametrize(
    "loss",
    [
        "select lo_unlink(11)",
        "select lo_put(12, 0, 'another')",
        "delete from pg_largeobject where loid = 13",
        "revoke select on large object 9 from keeper",
    ],
)
def test_their_content_is_proven(
    scans: PipelineConfig, repository: Repository, empty: PostgresConfig, loss: str
) -> None:
    backup = logical.take(scans, repository)
    proof = logical.restore(backup, empty)
    assert "sequences, 300 large objects; amcheck" in next(proof.lines())
    with connect(empty) as connection:
        connection.execute("set allow_system_table_mods = on")
        connection.execute(loss.encode())
        with pytest.raises(RestoreError, match=r"large objects: expected 300 of .*, found "):
            prove(connection, backup.manifest.facts)


@pytest.mark.parametrize("part", ["tables", "schemas", "schema only"])
def test_what_holds_none_says_so(
    scans: PipelineConfig, repository: Repository, empty: PostgresConfig, part: str
) -> None:
    said: list[str] = []
    backup = logical.take(
        scans,
        repository,
        said.append,
        tables=["artists"] if part == "tables" else (),
        schemas=["Mixed Case"] if part == "schemas" else (),
        schema_only=part == "schema only",
    )
    told = f"large objects: 300 are not in a backup of: {backup.manifest.facts['scope']}"
    assert f"{backup.label}: NOT in it: {told}" in said
    assert told in logical.restore(backup, empty).not_examined


def test_a_backup_that_did_not_note_them_proves_none(
    scans: PipelineConfig, repository: Repository, empty: PostgresConfig
) -> None:
    backup = logical.take(scans, repository)
    logical.restore(backup, empty)
    facts = dict(backup.manifest.facts)
    del facts[large_objects.FACT]
    with connect(empty) as connection:
        proof = prove(connection, facts)
    assert "large objects: the backup did not note them" in proof.not_examined


def test_more_of_them_than_one_transaction_can_lock(
    scans: PipelineConfig, repository: Repository, empty: PostgresConfig
) -> None:
    with connect(scans.postgres) as connection:
        connection.execute("select lo_from_bytea(0, '.') from generate_series(1, 12000)")
    backup = logical.take(scans, repository)
    assert logical.restore(backup, empty).large_objects == 12_300
