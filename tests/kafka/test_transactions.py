"""Which open transaction hangs: the coordinator's word counts, whatever times its records have."""

import pytest

from checks.hanging import hanging
from fixtures.faults.hanging import leave_hanging
from fixtures.stacks.protocol import Stack
from pipeline.kafka.cluster.raw import RawReader
from pipeline.kafka.cluster.topics import describe
from pipeline.kafka.replay.target_topic import HELD
from tests.kafka import topics

pytestmark = pytest.mark.stack
MICROSECONDS = 1_700_000_000_000_000
"""A time of today, in the unit that some clients send instead of milliseconds."""


def test_only_what_no_coordinator_ends_hangs(broker: Stack) -> None:
    kafka = broker.config.kafka
    topic = topics.create(kafka, "open", config=HELD)
    (place,) = describe(kafka, [topic])[0].places
    writer = topics.producer(kafka, **{"transactional.id": f"of-{topic}"})
    writer.init_transactions(30)
    writer.begin_transaction()
    for time in (1, MICROSECONDS):
        writer.produce(topic, b"of another time", partition=0, timestamp=time)
    assert writer.flush(30) == 0
    with RawReader(kafka) as reader:
        assert hanging(reader, place) == []
        producer = leave_hanging(kafka, place, 3)
        (found,) = hanging(reader, place)
        assert (found.producer_id, found.first) == (producer, 2)
        assert found.why == "no coordinator knows its producer"
        writer.abort_transaction(30)
        assert hanging(reader, place) == [found]
