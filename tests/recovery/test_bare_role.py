"""A role that may only log in is enough for checks that bring a backup back (quickstart, 3)."""

import pytest

from checks.check import Outcome
from checks.restored import DigestRestore, TrialRestore
from checks.rules.restore_data import tables_sound
from checks.rules.restore_digests import rows_as_digested
from pipeline.config import PipelineConfig, ScratchConfig
from tests.recovery.history import Source


@pytest.fixture
def checking(source: Source) -> PipelineConfig:
    """The configuration of a role that reads no table of the server it checks."""
    source.run("create role bare login", "insert into notes (note) values ('kept')")
    source.back_up("one", digests=True)
    source.archive()
    source.expect(source.position())
    scratch = source.stack.folder / "scratch"
    scratch.mkdir(exist_ok=True)
    changes = {
        "postgres": source.config.postgres.model_copy(update={"user": "bare"}),
        "scratch": ScratchConfig(path=scratch),
    }
    return source.config.model_copy(update=changes)


def test_rows_are_held_against_digests(checking: PipelineConfig) -> None:
    found = rows_as_digested.run(lambda: DigestRestore.of(checking))
    assert (found.outcome, found.trouble) == (Outcome.PASS, None)
    label, *tables = (seen.subject for seen in found.observations)
    assert label.startswith("base-")
    assert tables == ["public.documents", "public.notes"]


def test_every_table_of_a_trial_restore_is_read(checking: PipelineConfig) -> None:
    trial = TrialRestore.of(checking)
    try:
        found = tables_sound.run(lambda: trial)
        with trial.connect() as connection:
            assert connection.info.user == "postgres"
    finally:
        trial.close()
    assert (found.outcome, found.trouble) == (Outcome.PASS, None)
