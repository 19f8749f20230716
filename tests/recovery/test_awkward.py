"""No false alarm, and nothing left out without a word, on a database that is shaped like few."""

from collections.abc import Iterator

import pytest
from psycopg import sql

from checks.restored import DigestRestore, LogicalRestore, TrialRestore
from checks.subjects import BaseBackup, LogicalBackup, SourceServer
from fixtures.faults import server, sources
from fixtures.scratch import Material, Scratch
from fixtures.stacks.versions import major
from pipeline.postgres.logical import logical
from pipeline.postgres.server.amcheck import LIMITS
from pipeline.postgres.server.session import connect
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks.structure import examine
from tests.recovery.alarms import alarms
from tests.recovery.awkward import FOR_EVERYBODY, GUARD, SCHEMA


@pytest.fixture
def source(material: Material) -> Iterator[Scratch[SourceServer]]:
    with material.scratch(SourceServer) as scratch:
        server.execute(scratch, SCHEMA)
        yield scratch


def test_checks_raise_no_alarm(source: Scratch[SourceServer]) -> None:
    server.execute(source, GUARD)
    sources.back_up_logical(source)
    sources.back_up_base(source, digests=True)
    found = alarms(source)
    server.own_server(source).stop()  # what was written last is archived then
    found |= alarms(source, BaseBackup, TrialRestore, DigestRestore, LogicalBackup, LogicalRestore)
    assert set(found) == {"postgres.every-table-is-logged"}, found  # one is not


def test_what_is_set_for_everybody_is_not_set_for_backups_and_proofs(
    source: Scratch[SourceServer],
) -> None:
    """As for an application: all of it would end, refuse or change what a backup asks."""
    settings = FOR_EVERYBODY | ({"transaction_timeout": "20ms"} if major() >= 17 else {})
    alter = sql.SQL("alter role all set {} = {}")
    server.execute(source, *(alter.format(sql.Identifier(n), v) for n, v in settings.items()))
    sources.back_up_logical(source)
    sources.back_up_base(source, digests=True)
    (taken, *_) = Repository(FolderStore(source.repository)).labels(logical.KIND)[::-1]
    backup = Repository(FolderStore(source.repository)).get(taken)
    postgres = source.config.postgres
    with connect(postgres, autocommit=True) as connection:
        connection.execute("create database again template template0")
        found = examine(connection, postgres, lambda _: None)
    assert not [one for one in found["not_examined"] if "template0" not in one and one != LIMITS]
    logical.restore(backup, postgres.model_copy(update={"dbname": "again"}))
    alarmed = alarms(source)
    server.own_server(source).stop()
    alarmed |= alarms(source, TrialRestore, DigestRestore, LogicalBackup, LogicalRestore)
    assert set(alarmed) == {"postgres.every-table-is-logged"}, alarmed
