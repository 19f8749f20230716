"""Brokers that go while a topic is brought back: it goes on, or one error says what is wrong."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from confluent_kafka.admin import NewTopic

from fixtures.stacks.kafka import KafkaServer
from fixtures.stacks.protocol import Component, Stack
from pipeline.config import KafkaConfig
from pipeline.errors import RestoreError, ServerError
from pipeline.kafka.cluster import momentary
from pipeline.kafka.cluster.raw_produce import RawWriter
from pipeline.kafka.replay import replay_journal, replay_write
from tests.kafka import topics
from tests.kafka.brokers import pair
from tests.kafka.replayed import Site, consumed, place_extent

pytestmark = pytest.mark.stack
FOREVER = {"retention.ms": "-1"}


def archived(here: Site) -> str:
    """Many small batches, and gaps between them."""
    topic = topics.create(here.kafka, "disturbed", config=FOREVER)
    writer = topics.producer(here.kafka, **{"batch.size": "1000", "linger.ms": "0"})
    topics.fill(writer, topic, 3_000)
    topics.transactions(here.kafka, topic, "cac", size=20)
    topics.fill(writer, topic, 1_000)
    here.archive(topic)
    return topic


Call = tuple[type, str, int]
RECORDS: Call = (replay_write.PartitionWriter, "_send", 30)
MARKER: Call = (RawWriter, "mark", 2)


def at_call(call: Call, act: Callable[[], object], patch: pytest.MonkeyPatch) -> None:
    """Let that happen right before the given call, and only once."""
    owner, name, number = call
    true, calls = getattr(owner, name), [0]

    def disturbed(*given: object, **named: object) -> object:
        calls[0] += 1
        if calls[0] == number:
            act()
        return true(*given, **named)

    patch.setattr(owner, name, disturbed)


@pytest.mark.slow
@pytest.mark.parametrize("call", [RECORDS, MARKER], ids=["records", "markers"])
def test_a_broker_that_is_started_anew_gets_nothing_twice(
    here: Site, broker: Stack, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    topic = archived(here)

    def restart() -> None:
        broker.kill(Component.KAFKA)
        broker.start(Component.KAFKA)

    monkeypatch.setattr(replay_write, "WINDOW", 16)
    at_call(call, restart, monkeypatch)
    here.bring(topic)
    assert consumed(here.kafka, f"{topic}-back") == consumed(here.kafka, topic)
    assert place_extent(here.kafka, f"{topic}-back") == place_extent(here.kafka, topic)


@pytest.mark.slow
def test_a_broker_that_stays_away_is_one_error_and_the_replay_goes_on_later(
    here: Site, broker: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = archived(here)
    with monkeypatch.context() as patch:
        patch.setattr(replay_write, "WINDOW", 16)
        patch.setattr(momentary, "PATIENCE", timedelta(seconds=2))
        at_call(RECORDS, lambda: broker.kill(Component.KAFKA), patch)
        with pytest.raises(
            ServerError, match=rf"{topic}-back\[0\] on .*ListOffsets.* not within 2 s"
        ):
            here.bring(topic)
    ((name, _),) = replay_journal.unfinished(here.config)
    broker.start(Component.KAFKA)
    here.resume(name)
    assert consumed(here.kafka, f"{topic}-back") == consumed(here.kafka, topic)
    assert list(replay_journal.unfinished(here.config)) == []


def test_a_topic_that_is_deleted_before_a_marker_is_one_error(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = archived(here)
    client = topics.admin(here.kafka)

    def delete() -> None:
        client.delete_topics([f"{topic}-back"])[f"{topic}-back"].result()

    at_call(MARKER, delete, monkeypatch)
    with pytest.raises(RestoreError, match=r"-back\[0\]: the topic was deleted meanwhile"):
        here.bring(topic)
    assert len(list(replay_journal.unfinished(here.config))) == 1


@pytest.fixture
def two() -> Iterator[tuple[KafkaConfig, KafkaServer]]:
    with pair() as (servers, second):
        yield KafkaConfig(bootstrap_servers=servers), second


@pytest.mark.slow
def test_a_leader_that_dies_hands_over(
    here: Site, two: tuple[KafkaConfig, KafkaServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka, second = two
    here.connect(kafka)
    topic = archived(here)
    before, extent = consumed(kafka, topic), place_extent(kafka, topic)
    monkeypatch.setattr(replay_write, "WINDOW", 16)
    made, client = "handed-over", topics.admin(kafka)
    led = NewTopic(made, num_partitions=1, replica_assignment=[[2, 1]], config=FOREVER)
    client.create_topics([led])[made].result()
    at_call(RECORDS, second.kill, monkeypatch)
    here.bring(topic, name=made)
    assert consumed(kafka, made) == before
    assert place_extent(kafka, made) == extent
