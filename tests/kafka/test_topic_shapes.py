"""Whatever shape a topic has, its archive brings back what a consumer saw, at the same offsets.

A new shape is one entry of SHAPES.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Self

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from fixtures.kafka_story import commit
from fixtures.stacks import training
from fixtures.stacks.kafka import KafkaServer
from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component, Stack
from pipeline.config import KafkaConfig
from pipeline.errors import RecoveryRefused
from pipeline.kafka.archive import archive
from pipeline.kafka.cluster.topics import cluster_id, describe
from pipeline.kafka.groups import groups
from pipeline.kafka.replay.target_topic import existing
from pipeline.runbooks.topic_asked import Asked
from pipeline.runbooks.topic_loss import TopicRecovery, new_recovery
from pipeline.wait import wait_until
from tests.kafka import topics
from tests.kafka.brokers import listening, pair
from tests.kafka.quotas import limited
from tests.kafka.readers import held
from tests.kafka.replayed import Seen, Site, consumed, delete, eventful
from tests.shapes.green import not_green

pytestmark = pytest.mark.stack
Write = Callable[[KafkaConfig, str], None]
View = Sequence[Sequence[Seen] | Mapping[bytes | None, bytes | None]]
PARTITIONS = 2
_NUMBERS = count()


def codec(name: str) -> Write:
    """Records of every kind, packed by the producer."""

    def write(kafka: KafkaConfig, topic: str) -> None:
        for partition in range(PARTITIONS):
            eventful(kafka, topic, 200, partition, **{"compression.type": name})

    return write


def keyed(kafka: KafkaConfig, topic: str) -> None:
    """Few keys, changed often, and a third of them deleted."""
    writer = topics.producer(kafka, **{"batch.size": 1_000})
    for partition in range(PARTITIONS):
        topics.fill(writer, topic, 300, keys=30, partition=partition)
        for key in range(10):
            writer.produce(topic, None, str(key), partition=partition)
    assert writer.flush(30) == 0


def transactional(kafka: KafkaConfig, topic: str) -> None:
    codec("lz4")(kafka, topic)
    topics.transactions(kafka, topic, "cacca", size=20)


def left_open(kafka: KafkaConfig, topic: str) -> None:
    """A transaction that nobody ends, behind others; it ends with the test at the latest."""
    transactional(kafka, topic)
    writer = topics.producer(
        kafka,
        **{
            "transactional.id": f"open-{topic}",
            "transaction.timeout.ms": "600000",
            "log_level": "0",  # it outlives its broker
        },
    )
    writer.init_transactions(30)
    writer.begin_transaction()
    topics.fill(writer, topic, 5)
    _OPEN[topic] = writer


_OPEN: dict[str, object] = {}
"""Held, for a producer that is collected aborts."""


@dataclass(frozen=True)
class Shape:
    """A topic's own settings, and who writes to it."""

    settings: Mapping[str, str]
    write: Write

    @property
    def compacted(self) -> bool:
        """Whether older records of a key may go at any time."""
        return "compact" in self.settings.get("cleanup.policy", "")


FOREVER = {"retention.ms": "-1"}
LOG_TIME = {"message.timestamp.type": "LogAppendTime"}
SHAPES = {
    "compact-and-delete-zstd": Shape(
        topics.COMPACTED
        | FOREVER
        | {"cleanup.policy": "compact,delete", "compression.type": "zstd"},
        keyed,
    ),
    "log-append-time-gzip": Shape(FOREVER | LOG_TIME, codec("gzip")),
    "compact": Shape(topics.COMPACTED, keyed),
    "compact-log-append-time": Shape(topics.COMPACTED | LOG_TIME, keyed),
    "tombstones-gone-soon": Shape(topics.COMPACTED | {"delete.retention.ms": "100"}, keyed),
    "delete-none": Shape(FOREVER, codec("none")),
    "delete-snappy": Shape(FOREVER, codec("snappy")),
    "delete-lz4": Shape(FOREVER, codec("lz4")),
    "delete-zstd": Shape(FOREVER, codec("zstd")),
    "packed-again-by-the-broker": Shape(FOREVER | {"compression.type": "gzip"}, codec("lz4")),
    "unpacked-by-the-broker": Shape(
        FOREVER | {"compression.type": "uncompressed"}, codec("snappy")
    ),
    "transactional": Shape(FOREVER, transactional),
    "transactional-log-append-time": Shape(FOREVER | LOG_TIME, transactional),
    "transaction-left-open": Shape(FOREVER, left_open),
    "small-segments": Shape(FOREVER | {"segment.bytes": "1048576"}, codec("gzip")),
}
QUICK = "log-append-time-gzip"
CASES = [
    pytest.param(shape, id=name, marks=[] if name == QUICK else [pytest.mark.slow])
    for name, shape in SHAPES.items()
]


@pytest.fixture(scope="module")
def broker() -> Iterator[Stack]:
    """One of this module's own: the checks look at every topic that is there."""
    with NativeStack.launch(
        artifacts=training.prepared(), components=(Component.KAFKA,)
    ) as started:
        yield started


@pytest.mark.parametrize("shape", CASES)
def test_a_deleted_topic_comes_back_in_its_shape(
    here: Site, tmp_path_factory: pytest.TempPathFactory, shape: Shape
) -> None:
    topic = made(here, shape)
    told = lost(here, shape, topic)
    recover(here, topic)
    assert Told.of(here.kafka, shape, topic) == told
    groups.take(here.config, here.repository)
    archive.take(here.config, here.repository)
    notes = tmp_path_factory.mktemp("notes")
    assert not_green(here.config, notes, {"kafka"}, without=NOT_ALONE) == []


NOT_ALONE = {"kafka.one-consistency-point"}
"""Checks that a broker without a database cannot pass."""


def made(here: Site, shape: Shape, replicas: int = 1) -> str:
    name = f"shaped-{next(_NUMBERS)}"
    client = topics.admin(here.kafka)
    wanted = NewTopic(name, PARTITIONS, replicas, config=dict(shape.settings))
    client.create_topics([wanted])[name].result()
    shape.write(here.kafka, name)
    return name


@dataclass(frozen=True)
class Told:
    """All that must be the same again."""

    view: View
    overrides: Mapping[str, str]
    offsets: Sequence[object]

    @classmethod
    def of(cls, kafka: KafkaConfig, shape: Shape, topic: str) -> Self:
        (described,) = describe(kafka, [topic])
        return cls(view(kafka, shape, topic), described.overrides, held(kafka, group_of(topic)))


def lost(here: Site, shape: Shape, topic: str, others: KafkaConfig | None = None) -> Told:
    """Archive it and its group's offsets, and delete it; `others` do what is not ours to do."""
    others = others or here.kafka
    commit(others, group_of(topic), TopicPartition(topic, 1, 50, "here"))
    told = Told.of(others, shape, topic)
    assert all(told.view)
    groups.take(here.config, here.repository)
    here.archive(topic)
    delete(others, topic)
    return told


def recover(here: Site, topic: str, replication: int | None = None) -> None:
    asked, identity = Asked([topic], replication=replication), cluster_id(here.kafka)
    TopicRecovery(here.config, asked, new_recovery(here.config), identity).run()


def group_of(topic: str) -> str:
    return f"readers-of-{topic}"


def view(kafka: KafkaConfig, shape: Shape, topic: str) -> View:
    """What a consumer sees of each partition; of a compacted one, what it holds at the end."""
    seen = [consumed(kafka, topic, partition) for partition in range(PARTITIONS)]
    if not shape.compacted:
        return seen
    folds = [{one.key: one.value for one in partition} for partition in seen]
    return [{key: value for key, value in fold.items() if value is not None} for fold in folds]


@pytest.fixture
def two() -> Iterator[tuple[KafkaConfig, KafkaServer]]:
    with pair() as (servers, second):
        yield KafkaConfig(bootstrap_servers=servers, client={"log_level": "0"}), second


@pytest.mark.slow
def test_replicas_come_back_on_as_many_brokers_as_there_are(
    here: Site, two: tuple[KafkaConfig, KafkaServer]
) -> None:
    """One broker of two dies with the topic: it comes back with one replica, when told to."""
    kafka, second = two
    here.connect(kafka)
    shape = SHAPES["delete-zstd"]
    topic = made(here, shape, replicas=2)
    told = lost(here, shape, topic)
    recover(here, topic)
    assert (Told.of(kafka, shape, topic), replicas(here, topic)) == (told, 2)
    told = lost(here, shape, topic)
    second.kill()
    wait_until("the brokers know", lambda: not_alone(kafka), within=topics.WITHIN)
    with pytest.raises(RecoveryRefused, match="say --replication 1"):
        recover(here, topic)
    recover(here, topic, replication=1)
    assert (Told.of(kafka, shape, topic), replicas(here, topic)) == (told, 1)


def replicas(here: Site, topic: str) -> int:
    found = existing(here.kafka, topic)
    assert found is not None
    return found.replication


def not_alone(kafka: KafkaConfig) -> str | None:
    there = topics.admin(kafka).list_topics(timeout=10).brokers
    return None if len(there) == 1 else f"{len(there)} brokers"


RIGHTS = {
    ResourceType.TOPIC: (
        *("DESCRIBE", "DESCRIBE_CONFIGS", "READ"),
        *("CREATE", "WRITE", "DELETE", "ALTER_CONFIGS"),
    ),
    ResourceType.GROUP: ("DESCRIBE", "READ"),
    ResourceType.BROKER: ("DESCRIBE", "ALTER"),
}
"""What docs/quickstart.md says that archives, restores and recoveries need."""
USER = "archivist"


@pytest.fixture
def guarded() -> Iterator[tuple[KafkaConfig, KafkaConfig]]:
    """A broker that allows what an ACL names: how its administrator and how we connect."""
    login = (
        "org.apache.kafka.common.security.plain.PlainLoginModule required "
        f'username="{USER}" password="{USER}" user_{USER}="{USER}";'
    )
    listener = {"sasl.enabled.mechanisms": "PLAIN", "plain.sasl.jaas.config": login}
    authorizer = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    with listening({"OURS": ("SASL_PLAINTEXT", listener)}, authorizer) as at:
        ours = {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": USER,
            "sasl.password": USER,
        }
        administrator = KafkaConfig(bootstrap_servers=at["PLAINTEXT"])
        allow(administrator)
        yield administrator, KafkaConfig(bootstrap_servers=at["OURS"], client=ours)


def allow(kafka: KafkaConfig) -> None:
    """Give us the rights of the documentation, and no others."""
    bindings = [
        AclBinding(
            kind,
            "kafka-cluster" if kind is ResourceType.BROKER else "*",
            ResourcePatternType.LITERAL,
            f"User:{USER}",
            "*",
            AclOperation[right],
            AclPermissionType.ALLOW,
        )
        for kind, rights in RIGHTS.items()
        for right in rights
    ]
    client = topics.admin(kafka)
    for done in client.create_acls(bindings).values():
        done.result()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["delete-lz4", "transactional", "compact"])
def test_the_rights_of_the_documentation_and_a_quota_suffice(
    here: Site, guarded: tuple[KafkaConfig, KafkaConfig], name: str
) -> None:
    administrator, ours = guarded
    shape = SHAPES[name]
    here.connect(administrator)
    topic = made(here, shape)
    with limited(administrator, producer_byte_rate=30_000, consumer_byte_rate=30_000):
        here.connect(ours)
        told = lost(here, shape, topic, administrator)
        recover(here, topic)
    assert Told.of(administrator, shape, topic) == told
