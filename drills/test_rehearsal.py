"""Rehearsal: real backups come back into servers that are thrown away, and every check reads them.

With `--config pipeline.toml` they are those of that pipeline, which is only read; without it small
ones that were made for this run. Faults go into generated ones only.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from checks.gate import checks_at_rest, checks_of_replays
from checks.kafka_subjects import TopicArchive
from checks.subjects import BackupRepository
from fixtures.faults import backups, files
from fixtures.rehearsal.plugin import Rehearsals
from fixtures.rehearsal.topics import replayed_topics
from fixtures.reporting.model import DrillReport
from fixtures.reporting.summary import failure
from fixtures.scratch import Damage, Material, Scratch
from fixtures.verdict import NotVerified, Verdict
from pipeline.config import PipelineConfig
from pipeline.kafka.archive import archive
from pipeline.repository.kinds import newest
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore

pytestmark = [pytest.mark.drill, pytest.mark.stack]

Rehearse = Callable[[PipelineConfig], DrillReport]


@pytest.fixture
def rehearse(rehearsals: Rehearsals, tmp_path: Path) -> Rehearse:
    """Bring everything back, examine it, and publish what was found."""

    def rehearsed(config: PipelineConfig) -> DrillReport:
        with rehearsals.of(config) as rehearsal:
            rehearsal.postgres()
            with replayed_topics(rehearsal) as there:
                if there is not None:
                    rehearsal.gate += checks_of_replays(there, tmp_path / "replays")
            rehearsal.gate += checks_at_rest(rehearsal.nowhere, tmp_path / "notes")
            rehearsal.prove_sockets()
            return rehearsals.publish(rehearsal)

    return rehearsed


@pytest.fixture
def generated(material: Material) -> Iterator[Scratch[BackupRepository]]:
    """A small repository of a server and of topics, made for this run."""
    with material.scratch(BackupRepository) as scratch, material.scratch(TopicArchive) as topics:
        shutil.copytree(topics.repository / "sets", scratch.repository / "sets", dirs_exist_ok=True)
        # nothing listens there: the port names a socket in a private folder
        postgres = scratch.config.postgres.model_copy(update={"port": 5432})
        config = scratch.config.model_copy(update={"postgres": postgres})
        yield replace(scratch, config=config)


@pytest.mark.timeout(0)  # real backups may take hours, and a run that was cut short is no finding
def test_rehearsal(
    rehearse: Rehearse, pipeline_config: PipelineConfig | None, request: pytest.FixtureRequest
) -> None:
    """After the loss of everything, these backups bring the pipeline back.

    The sets are restored into throw-away servers that reach nobody, and every check reads them.
    """
    if pipeline_config is not None:
        settle(rehearse(pipeline_config))
        return
    generated: Scratch[BackupRepository] = request.getfixturevalue("generated")
    before = generated.fingerprint()
    settle(rehearse(generated.config))
    assert generated.fingerprint() == before, "nothing is written to what is rehearsed"


def settle(found: DrillReport) -> None:
    """Make the verdict that of the test."""
    if found.verdict == Verdict.NOT_VERIFIED:
        raise NotVerified(failure(found))
    if found.verdict != Verdict.RECOVERED:
        pytest.fail(failure(found), pytrace=False)


def damaged_object(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """Bit rot in the newest base backup."""
    return files.flip_bit(scratch, backups.latest_base(scratch).manifest.objects[0].key, rng)


def damaged_topic(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """Bit rot in the records of a topic."""
    listed = newest(Repository(FolderStore(scratch.repository)), archive.KIND).manifest.objects
    largest = max(listed, key=lambda entry: entry.size)
    return files.flip_bit(scratch, largest.key, rng)


def lost_segment(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """A segment behind the newest base backup is gone from the archive."""
    wal = sorted(
        path.name for path in (scratch.repository / "wal").glob("00000002????????????????")
    )
    return files.drop(scratch, f"wal/{rng.choice(wal[:-1])}")


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        pytest.param(damaged_object, "rehearsal.base-backup-comes-back", id="damaged-object"),
        pytest.param(
            lost_segment, "rehearsal.target-reached", id="lost-segment", marks=pytest.mark.slow
        ),
        pytest.param(
            damaged_topic, "rehearsal.topics-come-back", id="damaged-topic", marks=pytest.mark.slow
        ),
    ],
)
def test_rehearsal_of_damaged_backups_ends_red(
    rehearse: Rehearse,
    generated: Scratch[BackupRepository],
    seed: int,
    fault: Callable[[Scratch[BackupRepository], Random], Damage],
    named: str,
) -> None:
    """From damaged backups not everything comes back, and the rehearsal names what is damaged."""
    damage = fault(generated, Random(seed))
    found = rehearse(generated.config)
    assert found.verdict == Verdict.LOST_DATA, failure(found)
    told = [reason for reason in found.reasons if reason.startswith(named)]
    assert told, failure(found)
    assert Path(damage.subject).name in "; ".join(found.reasons)
