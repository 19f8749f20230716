"""Topics of every kind, made and written through confluent-kafka."""

from collections.abc import Mapping
from datetime import timedelta
from itertools import count

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from pipeline.config import KafkaConfig
from pipeline.kafka.cluster.momentary import ask_again
from pipeline.kafka.replay import target_topic
from pipeline.wait import wait_until

_NUMBERS = count()  # a topic outlives its test: no two share one
WITHIN = timedelta(seconds=60)
COMPACTED = {
    "cleanup.policy": "compact",
    "segment.ms": "100",
    "min.cleanable.dirty.ratio": "0.01",
    "max.compaction.lag.ms": "100",
}
"""Cleaned as soon as the broker looks."""


def admin(kafka: KafkaConfig) -> AdminClient:
    """Return a client to hold: an answer never comes to one that was collected."""
    return AdminClient({"bootstrap.servers": kafka.bootstrap_servers})


def create(
    kafka: KafkaConfig, kind: str, partitions: int = 1, config: Mapping[str, str] | None = None
) -> str:
    name = f"{kind}-{next(_NUMBERS)}"
    return target_topic.create(kafka, name, partitions, 1, config or {}).name


def recreate(kafka: KafkaConfig, topic: str) -> None:
    """Delete it and make it again: the name stays, the topic id does not."""
    client = admin(kafka)
    client.delete_topics([topic])[topic].result()

    def existing() -> str | None:
        try:
            made = client.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
            made[topic].result()
        except KafkaException as error:
            return str(error)
        return None

    wait_until(f"{topic} made anew", existing, within=WITHIN)


def producer(kafka: KafkaConfig, **changes: str | float | bool) -> Producer:
    return Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 5} | changes)


def fill(writer: Producer, topic: str, values: int, *, keys: int = 0, partition: int = 0) -> None:
    """Write numbered values; with `keys` they go round as many keys."""
    for number in range(values):
        key = str(number % keys) if keys else None
        writer.produce(topic, f"value {number}".encode(), key, partition=partition)
        writer.poll(0)
    assert writer.flush(30) == 0


def transactions(kafka: KafkaConfig, topic: str, outcomes: str, size: int = 3) -> None:
    """Write one transaction for each letter: `c` is committed, `a` aborted."""
    writer = producer(kafka, **{"transactional.id": f"of-{topic}"})
    writer.init_transactions(30)
    for outcome in outcomes:
        writer.begin_transaction()
        fill(writer, topic, size)
        if outcome == "c":
            writer.commit_transaction(30)
        else:
            writer.abort_transaction(30)


def delete_before(kafka: KafkaConfig, topic: str, offset: int) -> None:
    """Let the log begin later, as retention does."""
    place, client = TopicPartition(topic, 0, offset), admin(kafka)

    def delete() -> None:
        client.delete_records([place])[place].result()

    ask_again(f"{topic} from {offset}", delete)


def log_start(kafka: KafkaConfig, topic: str) -> int:
    place = TopicPartition(topic, 0)
    earliest = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # the library's
    client = admin(kafka)

    def ask() -> int:
        return int(client.list_offsets({place: earliest})[place].result().offset)

    return ask_again(f"start of {topic}", ask)


def committed(kafka: KafkaConfig, topic: str, partition: int, end: int) -> list[int]:
    """Offsets that a read_committed consumer of librdkafka sees before `end`."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": "tests",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0)])
    seen: list[int] = []

    def unfinished() -> str | None:
        for message in consumer.consume(10_000, 0.5):
            if message.error():
                return None
            seen.append(message.offset() or 0)
        return f"{len(seen)} records"

    wait_until(f"end of {topic}", unfinished, within=WITHIN)
    consumer.close()
    return [offset for offset in seen if offset < end]
