"""Faults of the checks act on a broker that has told its own nonce, and on no other."""

from pathlib import Path

import pytest

from checks.kafka_subjects import LiveTopics
from fixtures.faults import kafka_live
from fixtures.scratch import FaultRefused, Scratch
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
