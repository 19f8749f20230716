"""The check of row digests: of the very set that has them, or of nothing."""

from collections.abc import Iterator

import pytest

from checks.check import Examination, Outcome
from checks.restored import DigestRestore
from checks.rules.restore_digests import rows_as_digested
from fixtures.faults import backups
from fixtures.scratch import Material, Scratch
from pipeline.config import PipelineConfig
from pipeline.postgres.base.row_digests import FACT
from pipeline.postgres.wal.receiver import ExpectedEnd


@pytest.fixture
def kept(material: Material) -> Iterator[Scratch[DigestRestore]]:
    """A base backup with digests of its tables, and WAL that goes on over a change of timeline."""
    with material.scratch(DigestRestore) as scratch:
        yield scratch


def _judged(kept: Scratch[DigestRestore], config: PipelineConfig | None = None) -> Examination:
    return rows_as_digested.run(lambda: DigestRestore.of(config or kept.config))


def test_digests_of_a_branch_that_was_left_say_nothing_of_the_backup(
    kept: Scratch[DigestRestore],
) -> None:
    """As of a position that the left branch came to: replay finds it in the history since then."""
    beyond = str(ExpectedEnd.read(kept.repository).lsn)
    facts = backups.latest_base(kept).manifest.facts
    backups.change_fact(kept, FACT, {**facts[FACT], "lsn": beyond})
    found = _judged(kept)
    assert (found.outcome, found.problems) == (Outcome.UNKNOWN, ())
    assert f"are of {beyond} on timeline 1; replay comes there on timeline 2" in str(found.trouble)


def test_digests_are_held_against_their_own_database_whatever_is_configured(
    kept: Scratch[DigestRestore],
) -> None:
    other = kept.config.postgres.model_copy(update={"dbname": "template1"})
    found = _judged(kept, kept.config.model_copy(update={"postgres": other}))
    assert (found.outcome, found.trouble) == (Outcome.PASS, None)
    assert not list(kept.folder.glob("trial-*"))


def test_without_room_nothing_is_held_against_digests(kept: Scratch[DigestRestore]) -> None:
    backups.change_fact(kept, "database_bytes", 1 << 60)
    assert _judged(kept).outcome is Outcome.NOT_RUN
