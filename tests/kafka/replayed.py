"""What tests of a replay look at: consumers' view, raw batches; and how they bring a topic back."""

import random
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Consumer, TopicPartition

from fixtures.stacks.protocol import Stack
from pipeline.config import KafkaConfig, PipelineConfig
from pipeline.kafka.archive import archive
from pipeline.kafka.cluster.raw import RawReader
from pipeline.kafka.cluster.topics import describe, extents
from pipeline.kafka.log.batches import Batch, walk
from pipeline.kafka.replay import replay, replay_journal, replay_wish
from pipeline.kafka.replay.replay_plan import By
from pipeline.kafka.replay.replay_proof import Proven
from pipeline.repository.kinds import LATEST
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore
from pipeline.wait import wait_until
from tests.kafka import topics


class Seen(NamedTuple):
    """What a consumer gets of a record."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[object, ...]


def consumed(kafka: KafkaConfig, topic: str, partition: int = 0) -> list[Seen]:
    """All that a read_committed consumer of librdkafka gets from the log's start on."""
    reader = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": "tests",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    start = min(place_extent(kafka, topic, partition))
    reader.assign([TopicPartition(topic, partition, start)])
    found: list[Seen] = []

    def unfinished() -> str | None:
        for message in reader.consume(1_000, 0.1):
            if message.error():
                return None
            headers = tuple(message.headers() or ())
            offset, time = message.offset() or 0, message.timestamp()[1]
            found.append(Seen(offset, time, message.key(), message.value(), headers))
        return f"{len(found)} records"

    wait_until(f"end of {topic}[{partition}]", unfinished, within=topics.WITHIN)
    reader.close()
    return found


def place_extent(kafka: KafkaConfig, topic: str, partition: int = 0) -> tuple[int, int]:
    (described,) = describe(kafka, [topic])
    place = described.places[partition]
    found = extents(kafka, [place])[place]
    return found.start, found.high_watermark


def batches(kafka: KafkaConfig, topic: str) -> list[tuple[Batch, bytes]]:
    """Batches that hold records, raw."""
    (described,) = describe(kafka, [topic])
    start, end = place_extent(kafka, topic)
    with RawReader(kafka) as reader:
        data = b"".join(f.data for f in reader.batches(described.places[0], start, end))
    return [(b, bytes(view[61:])) for b, view in walk(data, topic) if not b.control]


def delete(kafka: KafkaConfig, topic: str) -> None:
    client = topics.admin(kafka)
    client.delete_topics([topic])[topic].result()

    def there() -> str | None:
        return "it is there" if topic in client.list_topics(timeout=10).topics else None

    wait_until(f"{topic} is gone", there, within=topics.WITHIN)


def eventful(kafka: KafkaConfig, topic: str, count: int, partition: int = 0, **how: str) -> None:
    """Records with times of the past, keys, tombstones, and headers twice and null."""
    rng = random.Random(partition)
    writer = topics.producer(kafka, **{"batch.size": "4000", **how})
    for number in range(count):
        value = None if number % 7 == 0 else b"" if number % 11 == 0 else rng.randbytes(40)
        headers: list[tuple[str, str | bytes | None]] = [
            ("a", b"1"),
            ("a", b"2"),
            ("null", None),
            ("empty", b""),
        ]
        writer.produce(
            topic,
            value,
            None if number % 3 == 0 else str(number % 50),
            partition=partition,
            timestamp=1_600_000_000_000 + number * 1000 - (number % 4) * 5000,
            headers=headers[: number % 5],
        )
        writer.poll(0)
    assert writer.flush(30) == 0


class Restored(NamedTuple):
    """A replay that ended: what it proved, and what it said."""

    proven: list[Proven]
    said: list[str]
    run: replay.Replay


class Site:
    """A broker, and a repository of this test's own."""

    def __init__(self, broker: Stack, folder: Path) -> None:
        own = broker.config.repository.model_copy(update={"path": folder})
        self.config: PipelineConfig = broker.config.model_copy(update={"repository": own})
        self.kafka = broker.config.kafka
        self.repository = Repository(FolderStore(folder))

    def connect(self, kafka: KafkaConfig) -> None:
        """Go on with another broker, or as somebody else."""
        self.config, self.kafka = self.config.model_copy(update={"kafka": kafka}), kafka

    def archive(self, topic: str) -> BackupSet:
        return archive.take(self.config, self.repository, [topic])

    def plan(self, topic: str, archive: str = LATEST) -> replay_wish.Plan:
        """What a replay into another name would do."""
        asked = replay_wish.Wish(topic, archive, name=f"{topic}-back")
        return replay_wish.make(self.config, self.repository, asked)

    def bring(
        self,
        topic: str,
        *,
        give_back_retention: bool = False,
        by: By | None = None,
        **wish: object,
    ) -> Restored:
        """Replay, into another name by default; the keywords are those of a wish."""
        plain = replay_wish.Wish(topic, name=f"{topic}-back")
        asked = replace(plain, **wish)  # type: ignore[arg-type]  # they are a wish's own
        said: list[str] = []
        plan = replay_wish.make(self.config, self.repository, asked, by)
        journal = replay_journal.new_journal(self.config, topic)
        one = replay.Replay(self.config, plan, journal, give_back_retention, said.append)
        return Restored(one.run(), said, one)

    def resume(self, name: str, *, give_back_retention: bool = False) -> Restored:
        """Go on with an interrupted one."""
        journal, told = replay_journal.reopened(self.config, name)
        plan, said = replay_wish.resumed(self.config, self.repository, told), list[str]()
        one = replay.Replay(self.config, plan, journal, give_back_retention, said.append)
        return Restored(one.run(), said, one)
