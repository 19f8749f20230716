"""`pipeline restore slots` without Connect: first the publication, then the slot as it was."""

from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fixtures.stacks import toml
from pipeline.cdc.state import kept
from pipeline.cli import app
from pipeline.errors import RecoveryRefused
from pipeline.postgres.replication.advance import flushed
from pipeline.postgres.replication.publications import find_publication
from pipeline.postgres.replication.slots import create_slot, drop_slot, find_slot
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from tests.recovery.history import Source

ALONE = ("--without-connect",)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect and Kafka are away for good: nothing is won by asking them for seconds."""
    monkeypatch.setattr("pipeline.cdc.state.read.GLANCE", timedelta(0))
    monkeypatch.setattr("pipeline.cdc.state.brokers.GLANCE", 0.1)


@pytest.fixture
def label(source: Source) -> str:
    """A publication with a filter, our slot with its flags, another's slot, and a set of all."""
    cdc = source.config.cdc
    source.run(
        "alter table notes add primary key (id)",
        f"create publication {cdc.publication} for table notes (id, note) where (id > 0)"
        " with (publish = 'insert, delete')",
    )
    with source.connect() as connection:
        newer = connection.info.server_version >= 170_000
        create_slot(connection, cdc.slot, failover=newer, two_phase=True)
        create_slot(connection, "warehouse")
        taken = kept.take(source.config, Repository(FolderStore(source.config.repository.path)))
    return taken.label


def restore(source: Source, folder: Path, *words: str) -> Result:
    configuration = folder / "pipeline.toml"
    toml.write(source.config, configuration, password_file=source.stack.password_file)
    return CliRunner().invoke(app, ["restore", "slots", *words, "--config", str(configuration)])


def test_slot_and_publication_are_what_they_were(
    source: Source, label: str, tmp_path: Path
) -> None:
    cdc = source.config.cdc
    with source.connect() as connection:
        before = find_publication(connection, cdc.publication), find_slot(connection, cdc.slot)
        for name in (cdc.slot, "warehouse"):
            drop_slot(connection, name)
        connection.execute(f"drop publication {cdc.publication}".encode())
        planned = restore(source, tmp_path, "--from", label, "--plan", *ALONE)
        assert planned.exit_code == 0, planned
        assert find_slot(connection, cdc.slot) is None
        done = restore(source, tmp_path, "--from", label, *ALONE)
        assert done.exit_code == 0, done
        after = find_publication(connection, cdc.publication), find_slot(connection, cdc.slot)
        assert find_slot(connection, "warehouse") is None
    assert after[0] == before[0]
    assert after[1] is not None
    assert before[1] is not None
    assert (after[1].failover, after[1].two_phase) == (before[1].failover, before[1].two_phase)
    for told in ("publication: publication", "it is made with", "'warehouse' was there too"):
        assert told in planned.output
    assert "stands at" in done.output
    assert "next: pipeline recover cdc --way reread" in done.output


def test_a_slot_that_is_sound_is_kept_and_moves_only_over_nothing(
    source: Source, label: str, tmp_path: Path
) -> None:
    source.run("create table untold (id int)", "insert into untold values (1)")
    with source.connect() as connection:
        over_nothing = flushed(connection)
        done = restore(source, tmp_path, "--from", label, "--advance-to", str(over_nothing))
        assert done.exit_code == 0, done
        connection.execute("insert into notes (note) values ('told')")
        to = str(flushed(connection))
        refused = restore(source, tmp_path, "--from", label, "--advance-to", to)
        slot = find_slot(connection, source.config.cdc.slot)
    assert isinstance(refused.exception, RecoveryRefused), refused
    assert "would skip 1 published changes of 1 transactions" in str(refused.exception)
    assert slot is not None
    assert slot.confirmed_flush_lsn == over_nothing


def test_a_slot_that_is_not_ours_is_told_and_left_alone(
    source: Source, label: str, tmp_path: Path
) -> None:
    name = source.config.cdc.slot
    with source.connect() as connection:
        drop_slot(connection, name)
    source.run(f"select pg_create_physical_replication_slot('{name}')")
    refused = restore(source, tmp_path, "--from", label, *ALONE)
    assert isinstance(refused.exception, RecoveryRefused), refused
    assert f"slot: slot '{name}' is physical" in str(refused.exception)
