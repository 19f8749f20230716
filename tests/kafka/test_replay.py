"""A topic comes back as it was: offsets, times, headers, codec, log start, configuration."""

import pytest

from pipeline.config import KafkaConfig
from pipeline.kafka.cluster.topics import describe
from pipeline.kafka.replay.target_topic import configure
from pipeline.wait import wait_until
from tests.kafka import topics
from tests.kafka.replayed import Seen, Site, batches, consumed, delete, eventful, place_extent

pytestmark = pytest.mark.stack
READS = 5
SLOW = pytest.mark.slow
CODECS = ("none", "lz4", *(pytest.param(codec, marks=SLOW) for codec in ("gzip", "snappy", "zstd")))


@pytest.mark.parametrize("codec", CODECS)
def test_a_plain_topic_comes_back_byte_for_byte(here: Site, codec: str) -> None:
    kafka = here.kafka
    own = {"retention.ms": "-1", "max.message.bytes": "2000000"}
    topic = topics.create(kafka, f"replayed-{codec}", 3, own)
    for partition in range(2):  # the third stays empty
        eventful(kafka, topic, 1_000, partition, **{"compression.type": codec})
    here.archive(topic)
    before = [consumed(kafka, topic, partition) for partition in range(3)]
    old = batches(kafka, topic)
    delete(kafka, topic)
    proven, said, _ = here.bring(topic, name=None)
    assert [consumed(kafka, topic, partition) for partition in range(3)] == before
    assert [payload for _, payload in batches(kafka, topic)] == [payload for _, payload in old]
    assert [b.codec for b, _ in batches(kafka, topic)] == [b.codec for b, _ in old]
    assert [each.records for each in proven] == [1_000, 1_000, 0]
    assert describe(kafka, [topic])[0].overrides == own
    assert not any("retention" in line for line in said)


def test_a_transactional_topic_keeps_its_offsets(here: Site) -> None:
    kafka = here.kafka
    topic = topics.create(kafka, "replayed-transactions")
    topics.transactions(kafka, topic, "caacaca")
    here.archive(topic)
    here.bring(topic)
    assert consumed(kafka, f"{topic}-back") == consumed(kafka, topic)
    assert place_extent(kafka, f"{topic}-back") == place_extent(kafka, topic)


def compacted(kafka: KafkaConfig, codec: str) -> str:
    """A topic with holes inside of batches, after the cleaner went over it."""
    topic = topics.create(kafka, "replayed-compacted", config=topics.COMPACTED)
    writer = topics.producer(kafka, **{"compression.type": codec})
    topics.fill(writer, topic, 500, keys=450)
    topics.fill(writer, topic, 1_000, keys=40)

    def uncleaned() -> str | None:
        topics.fill(writer, topic, 1, keys=1)  # rolls the segment: the active one is not cleaned
        holes = sum(batch.missing for batch, _ in batches(kafka, topic))
        return None if holes > 30 else f"{holes} holes"

    wait_until("the cleaner", uncleaned, within=topics.WITHIN)
    configure(kafka, topic, {**topics.COMPACTED, "cleanup.policy": "delete"})
    last: list[list[Seen]] = []

    def cleaning() -> str | None:
        last.append(consumed(kafka, topic))
        rested = len(last) >= READS and all(each == last[-1] for each in last[-READS:])
        return None if rested else "the cleaner is at work"  # it ends what it has begun

    wait_until("the cleaner's rest", cleaning, within=topics.WITHIN)
    return topic


@pytest.mark.parametrize("codec", ["lz4", pytest.param("snappy", marks=SLOW)])
def test_a_compacted_topic_keeps_its_offsets(here: Site, codec: str) -> None:
    kafka = here.kafka
    topic = compacted(kafka, codec)
    here.archive(topic)
    before = consumed(kafka, topic)
    proven, _, _ = here.bring(topic)
    assert consumed(kafka, f"{topic}-back") == before
    assert place_extent(kafka, f"{topic}-back") == place_extent(kafka, topic)
    assert proven[0].rewritten > 30
    codecs = [{b.codec for b, _ in batches(kafka, name)} for name in (topic, f"{topic}-back")]
    assert codecs[0] == codecs[1]  # a batch of one record goes uncompressed


@pytest.mark.parametrize("start", [1_234, pytest.param(250_000, marks=SLOW)])
def test_the_log_starts_where_it_did(here: Site, start: int) -> None:
    kafka = here.kafka
    topic = topics.create(kafka, "replayed-start")
    writer = topics.producer(kafka, **{"compression.type": "zstd", "batch.size": "100000"})
    topics.fill(writer, topic, start + 1_000)
    topics.delete_before(kafka, topic, start)
    here.archive(topic)
    here.bring(topic)
    assert consumed(kafka, f"{topic}-back") == consumed(kafka, topic)
    assert place_extent(kafka, f"{topic}-back") == (start, start + 1_000)
