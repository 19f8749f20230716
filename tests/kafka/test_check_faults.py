"""Faults act on a broker that has told its own nonce, and archives are of their own topics."""

from pathlib import Path

import pytest

from checks.check import Outcome
from checks.kafka_subjects import LiveTopics, OffsetsBackup
from checks.rules.kafka_group_backup import group_offsets_in_archive
from fixtures.faults import kafka_live
from fixtures.kafka_material import KafkaMaterial
from fixtures.scratch import FaultRefused, Scratch
from fixtures.stacks import training
from fixtures.stacks.protocol import Stack
from tests.kafka import topics

pytestmark = pytest.mark.stack


@pytest.mark.parametrize("nonce", ["", "another-cluster-entire"])
def test_a_broker_that_tells_another_nonce_is_not_damaged(
    broker: Stack, tmp_path: Path, nonce: str
) -> None:
    name = topics.create(broker.config.kafka, "kept")
    scratch = Scratch(LiveTopics, tmp_path, broker.config, nonce)
    with pytest.raises(FaultRefused, match="nothing may be damaged"):
        kafka_live.alter(scratch, name, {"retention.ms": "1"})
    assert kafka_live.topic(scratch, name).overrides == {}


def test_the_archive_is_of_its_own_topics_whatever_the_broker_held_before(tmp_path: Path) -> None:
    """Groups are backed up all at once; those of a live copy read topics that no archive has."""
    material = KafkaMaterial(tmp_path, training.prepared)
    try:
        with material.scratch(LiveTopics), material.scratch(OffsetsBackup) as archived:
            seen = group_offsets_in_archive.run(lambda: archived.copy)
    finally:
        material.close()
    assert (seen.outcome, seen.problems) == (Outcome.PASS, ())
