"""What a topic is beside its records: identity, partitions, configuration, where its log stands."""

import base64
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from confluent_kafka import (
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,
    ConfigSource,
    OffsetSpec,
    ResourceType,
)

from pipeline.config import KafkaConfig
from pipeline.errors import ServerError
from pipeline.kafka.brokers import Place
from pipeline.wait import wait_until

SECONDS = 30.0
WITHIN, EVERY = timedelta(seconds=30), timedelta(milliseconds=200)
_DAY_MS = 86_400_000
_MOVING = {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE}
_OWN = ConfigSource.DYNAMIC_TOPIC_CONFIG.value


@dataclass(frozen=True)
class Topic:
    """A topic as its brokers describe it; `overrides` are its own, the rest are defaults."""

    name: str
    topic_id: uuid.UUID
    replication: int
    partitions: tuple[int, ...]
    overrides: dict[str, str]
    defaults: dict[str, str]

    @property
    def compacted(self) -> bool:
        return "compact" in (self.defaults | self.overrides).get("cleanup.policy", "")

    @property
    def tombstones_ms(self) -> int:
        """How long the cleaner keeps a tombstone, once it has removed what it deletes."""
        return int((self.defaults | self.overrides).get("delete.retention.ms", _DAY_MS))

    @property
    def places(self) -> list[Place]:
        return [Place(self.name, self.topic_id, partition) for partition in self.partitions]


@dataclass(frozen=True)
class Extent:
    """Where a partition's log starts, where it is decided up to, and where it ends."""

    start: int
    end: int
    high_watermark: int


def describe(config: KafkaConfig, names: Sequence[str] = ()) -> list[Topic]:
    """Describe these topics, or all that are not the brokers' own.

    Raises ServerError, naming the topic, when one is missing or no broker answers.
    """
    client = admin(config)
    try:
        wanted = list(names) or _all(client)
        described = client.describe_topics(TopicCollection(wanted), request_timeout=SECONDS)
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in wanted]
        told = client.describe_configs(resources, request_timeout=SECONDS) if resources else {}
        configs = {resource.name: future.result() for resource, future in told.items()}
        return [_topic(described[name].result(), configs[name]) for name in wanted]
    except KafkaException as error:
        raise ServerError(
            f"topics {', '.join(names) or '(all)'} on {config.bootstrap_servers}: {error}"
        ) from error


def extents(config: KafkaConfig, places: Sequence[Place]) -> dict[Place, Extent]:
    """All partitions' extents, asked for together: where a run begins and ends."""
    client, found = admin(config), dict[Place, Extent]()

    def moving() -> str | None:
        """While a partition gets another leader, its brokers answer no offset."""
        try:
            found.update(_extents(client, places))
        except KafkaException as error:
            if error.args[0].code() not in _MOVING:
                raise ServerError(f"offsets on {config.bootstrap_servers}: {error}") from error
            return str(error)
        return None

    wait_until(f"offsets on {config.bootstrap_servers}", moving, within=WITHIN, every=EVERY)
    return found


def _extents(client: AdminClient, places: Sequence[Place]) -> dict[Place, Extent]:
    first: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # the library's
    last: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the library's
    starts = _offsets(client, places, first, IsolationLevel.READ_UNCOMMITTED)
    ends = _offsets(client, places, last, IsolationLevel.READ_COMMITTED)
    marks = _offsets(client, places, last, IsolationLevel.READ_UNCOMMITTED)
    return {place: Extent(starts[place], ends[place], marks[place]) for place in places}


def cluster_id(config: KafkaConfig) -> str:
    """Tell the cluster's own name for itself."""
    client = admin(config)
    try:
        return str(client.describe_cluster(request_timeout=SECONDS).result().cluster_id)
    except KafkaException as error:
        raise ServerError(f"cluster on {config.bootstrap_servers}: {error}") from error


def _offsets(
    client: AdminClient, places: Sequence[Place], spec: OffsetSpec, isolation: IsolationLevel
) -> dict[Place, int]:
    if not places:
        return {}
    asked = {TopicPartition(place.topic, place.partition): spec for place in places}
    told = client.list_offsets(asked, isolation_level=isolation, request_timeout=SECONDS)
    found = {(at.topic, at.partition): future.result().offset for at, future in told.items()}
    return {place: int(found[place.topic, place.partition]) for place in places}


def admin(config: KafkaConfig) -> AdminClient:
    """Open a client to hold: an answer never comes to one that was collected."""
    return AdminClient(config.librdkafka())


def _all(client: AdminClient) -> list[str]:
    return sorted(name for name in client.list_topics(timeout=SECONDS).topics if name[:2] != "__")


def _topic(told: Any, config: Mapping[str, Any]) -> Topic:  # noqa: ANN401 - librdkafka's
    own = {n: e.value for n, e in config.items() if e.source == _OWN}
    return Topic(
        name=told.name,
        topic_id=uuid.UUID(bytes=base64.urlsafe_b64decode(f"{told.topic_id}==")),
        replication=min(len(partition.replicas) for partition in told.partitions),
        partitions=tuple(partition.id for partition in told.partitions),
        overrides=own,
        defaults={n: e.value for n, e in config.items() if n not in own and e.value is not None},
    )
