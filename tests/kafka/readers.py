"""Consumer groups as tests need them: what is committed for them, forgotten, and read on."""

from collections.abc import Sequence

from confluent_kafka import Consumer

from pipeline.config import KafkaConfig
from pipeline.kafka.groups import groups
from pipeline.kafka.groups.groups import committed
from pipeline.wait import wait_until
from tests.kafka import topics


def held(kafka: KafkaConfig, group: str) -> list[tuple[str, int, int, str]]:
    """Topic, partition, offset and metadata of all that is committed."""
    return [
        (p.topic, p.partition, p.offset, p.metadata)
        for found in committed(kafka, (group,))
        for p in found.positions
    ]


def forget(kafka: KafkaConfig, group: str) -> None:
    admin = groups.client(kafka)
    admin.delete_consumer_groups([group])[group].result()


def forget_if_there(kafka: KafkaConfig, group: str) -> None:
    if list(committed(kafka, (group,))):
        forget(kafka, group)


def member(kafka: KafkaConfig, group: str, protocol: str) -> Consumer:
    """A consumer that begins at the log's start and commits when it is told."""
    return Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": group,
            "group.protocol": protocol,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )


def read(
    kafka: KafkaConfig, group: str, topic: str, count: int, protocol: str
) -> Sequence[tuple[int, int]]:
    """Read on as a member of the group, commit, and leave."""
    consumer = member(kafka, group, protocol)
    consumer.subscribe([topic])
    seen: list[tuple[int, int]] = []

    def missing() -> str | None:
        told = consumer.consume(count - len(seen), 0.2)
        seen.extend((message.partition() or 0, message.offset() or 0) for message in told)
        return f"{len(seen)} of {count}" if len(seen) < count else None

    wait_until(f"{count} records for {group}", missing, within=topics.WITHIN)
    consumer.commit(asynchronous=False)
    consumer.close()
    return seen
