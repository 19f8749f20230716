"""No false alarm on base backups of other shapes than the one that the proofs damage."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from checks.check import Outcome
from checks.restored import TrialRestore
from checks.rules import CATALOGUE
from checks.rules.restore import base_backup_starts
from checks.subjects import BackupRepository, BaseBackup, SourceServer
from checks.trial import LOG
from checks.verdicts import Verdict
from fixtures.faults import server
from fixtures.scratch import Material, Scratch
from pipeline.postgres.base import base_backup
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from tests.recovery.alarms import alarms, spread

KINDS = (BaseBackup, BackupRepository, TrialRestore)


@pytest.fixture
def source(material: Material) -> Iterator[Scratch[SourceServer]]:
    with material.scratch(SourceServer) as scratch:
        yield scratch


def back_up(source: Scratch[SourceServer]) -> None:
    base_backup.take(source.config, Repository(FolderStore(source.repository)))


def test_a_backup_with_a_tablespace_raises_no_alarm(source: Scratch[SourceServer]) -> None:
    spread(source)
    back_up(source)
    contents = BaseBackup.of(source.config).contents
    assert any(name.startswith("pg_tblspc/") and name in contents.pages for name in contents.files)
    assert alarms(source, *KINDS) == {}


def test_a_backup_taken_while_clients_write_raises_no_alarm(
    source: Scratch[SourceServer], tmp_path: Path
) -> None:
    """Pages that were written during the copy may be torn: nobody may take that for damage."""
    script = tmp_path / "writes.sql"
    script.write_text("update shop.orders set note = md5(random()::text) where id % 7 = 0;\n")
    script.chmod(0o644)
    for folder in list(script.parents)[:4]:
        folder.chmod(0o755)
    own = server.own_server(source)
    postgres = source.config.postgres
    address = ("-h", postgres.host, "-p", str(postgres.port), "-U", postgres.user)
    bench = own.tools.popen("pgbench", "-n", "-T", "600", "-c", "2", "-f", script, *address)
    try:
        server.execute(source, "checkpoint")
        for _ in range(2):
            back_up(source)
        assert bench.poll() is None
    finally:
        bench.kill()
        bench.communicate()
    assert alarms(source, *KINDS) == {}


def test_checks_of_a_server_that_did_not_start_tell_why_and_advise_nothing_else(
    material: Material,
) -> None:
    with material.scratch(TrialRestore) as scratch:
        lacking = scratch.config.postgres.model_copy(update={"replay_libraries": ("no_such",)})
        trial = TrialRestore.of(scratch.config.model_copy(update={"postgres": lacking}))
        with closing(trial):
            checks = CATALOGUE.on(TrialRestore)
            found = [Verdict.of_check(one, one.run(lambda: trial)) for one in checks]
        log = trial.path / LOG
        starts, *others = sorted(found, key=lambda verdict: verdict.check != base_backup_starts.id)
        assert (starts.outcome, starts.check) == (Outcome.FAIL, base_backup_starts.id)
        assert {verdict.outcome for verdict in others} == {Outcome.UNKNOWN}
        assert len({verdict.advice for verdict in others}) == 1
        assert base_backup_starts.id in others[0].advice
        for verdict in found:
            assert f"Its whole log is kept: {log}" in "\n".join(verdict.told)
        assert "FATAL" in log.read_text()
