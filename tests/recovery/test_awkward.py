"""No false alarm, and nothing left out without a word, on a database that is shaped like few."""

from collections.abc import Iterator

import pytest

from checks.restored import DigestRestore, LogicalRestore, TrialRestore
from checks.subjects import BaseBackup, LogicalBackup, SourceServer
from fixtures.faults import server, sources
from fixtures.scratch import Material, Scratch
from tests.recovery.alarms import alarms
from tests.recovery.awkward import GUARD, SCHEMA


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
