"""What a topic is beside its records: identity, partitions, configuration, where its log stands."""

import base64
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
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
from pipeline.kafka.cluster import momentary
from pipeline.kafka.cluster.momentary import UNKNOWN, ask_again, ask_each, code_of, reason
from pipeline.kafka.log.place import Place
from pipeline.repository.kinds import CLUSTER

SECONDS = momentary.SECONDS
_DAY_MS = 86_400_000
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


Missing = Mapping[str, str]
"""Topics of which something could not be learnt or read, each with the reason."""


def describe(config: KafkaConfig, names: Sequence[str] = ()) -> list[Topic]:
    """Describe these topics, or all that are not the brokers' own.

    Raises ServerError, naming the topic, when one is missing or no broker answers.
    """
    found, missing = described(config, list(names) or every(config)[0])
    for name, why in missing.items():
        if names or why != GONE:
            raise ServerError(f"topic {name} on {config.bootstrap_servers}: {why}")
    return found


def described(config: KafkaConfig, names: Sequence[str]) -> tuple[list[Topic], Missing]:
    """Describe these topics as far as brokers tell; the others come second."""
    client = admin(config)

    def ask(left: Sequence[str]) -> dict[str, Topic | Exception]:
        told = client.describe_topics(TopicCollection(list(left)), request_timeout=SECONDS)
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in left]
        asked = client.describe_configs(resources, request_timeout=SECONDS)
        configs = {resource.name: future for resource, future in asked.items()}
        return {name: _told(told[name], configs[name]) for name in left}

    what = f"topics on {config.bootstrap_servers}"
    found, failed = ask_each(what, names, ask)
    missing = {name: _why(failed[name]) for name in names if name in failed}
    return [found[name] for name in names if name in found], missing


def every(config: KafkaConfig) -> tuple[list[str], list[str]]:
    """Names of all topics, and apart from them of those that the brokers call their own."""
    client = admin(config)

    def ask(left: Sequence[str]) -> dict[str, bool | Exception]:
        told = client.describe_topics(TopicCollection(list(left)), request_timeout=SECONDS)
        return {name: _is_internal(told[name]) for name in left}

    names = sorted(listed(config).topics)
    found, _ = ask_each(f"topics on {config.bootstrap_servers}", names, ask)
    own = [name for name in names if found.get(name)]
    return [name for name in names if name not in own], own


def _is_internal(described: "Future[Any]") -> bool | Exception:
    try:
        return bool(described.result().is_internal)
    except KafkaException as error:
        return error


def listed(config: KafkaConfig) -> Any:  # noqa: ANN401 - librdkafka's
    """All topics and brokers; asked for together, since asking by name may create a topic."""
    client = admin(config)
    what = f"topics on {config.bootstrap_servers}"
    return ask_again(what, lambda: client.list_topics(timeout=SECONDS))


def extents(config: KafkaConfig, places: Sequence[Place]) -> dict[Place, Extent]:
    """All partitions' extents, asked for together: where a run begins and ends."""
    found, missing = known_extents(config, places)
    for place, why in missing.items():
        raise ServerError(f"offsets of {place} on {config.bootstrap_servers}: {why}")
    return found


def known_extents(
    config: KafkaConfig, places: Sequence[Place]
) -> tuple[dict[Place, Extent], dict[Place, str]]:
    """Extents of those partitions that have a leader; why there is none of the others."""
    client = admin(config)

    def ask(left: Sequence[Place]) -> dict[Place, Extent | Exception]:
        there = client.list_topics(timeout=SECONDS).topics
        unled = {place: error for place in left if (error := _unled(there, place)) is not None}
        return _extents(client, [place for place in left if place not in unled]) | unled

    found, failed = ask_each(f"offsets on {config.bootstrap_servers}", places, ask)
    return found, {place: _why(error) for place, error in failed.items()}


def _unled(there: Mapping[str, Any], place: Place) -> KafkaException | None:
    """Say why nobody can be asked: librdkafka would wait for all until each has a leader."""
    known = there[place.topic].partitions if place.topic in there else {}
    if place.partition not in known:
        return _refused(KafkaError.UNKNOWN_TOPIC_OR_PART)
    led = known[place.partition].leader >= 0
    return None if led else _refused(KafkaError.LEADER_NOT_AVAILABLE)


def _extents(client: AdminClient, places: Sequence[Place]) -> dict[Place, Extent | Exception]:
    first: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # the library's
    last: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the library's
    told = [
        _offsets(client, places, first, IsolationLevel.READ_UNCOMMITTED),
        _offsets(client, places, last, IsolationLevel.READ_COMMITTED),
        _offsets(client, places, last, IsolationLevel.READ_UNCOMMITTED),
    ]
    found: dict[Place, Extent | Exception] = {}
    for place in places:
        try:
            extent = Extent(*(int(asked[place].result().offset) for asked in told))
        except KafkaException as error:
            found[place] = error
        else:
            # of a leader that cannot be reached librdkafka tells an invalid offset, and no error
            known = min(extent.start, extent.end, extent.high_watermark) >= 0
            found[place] = extent if known else _refused(KafkaError.LEADER_NOT_AVAILABLE)
    return found


def _refused(code: int) -> KafkaException:
    return KafkaException(KafkaError(code))


def cluster_id(config: KafkaConfig) -> str:
    """Tell the cluster's own name for itself.

    Any broker tells it; librdkafka would ask a controller, and wait for one that is gone.
    """
    told = listed(config).cluster_id
    if not told:
        raise ServerError(f"Kafka on {config.bootstrap_servers} does not tell its cluster's id")
    return str(told)


def of_cluster(config: KafkaConfig) -> dict[str, str]:
    """The facts that backups of this cluster have, and no others."""
    return {CLUSTER: cluster_id(config)}


def _offsets(
    client: AdminClient, places: Sequence[Place], spec: OffsetSpec, isolation: IsolationLevel
) -> dict[Place, "Future[Any]"]:
    if not places:
        return {}
    asked = {TopicPartition(place.topic, place.partition): spec for place in places}
    told = client.list_offsets(asked, isolation_level=isolation, request_timeout=SECONDS)
    found = {(at.topic, at.partition): future for at, future in told.items()}
    return {place: found[place.topic, place.partition] for place in places}


GONE = "it is not there"


def _why(error: Exception) -> str:
    return GONE if code_of(error) in UNKNOWN else reason(error)


def admin(config: KafkaConfig) -> AdminClient:
    """Open a client to hold: an answer never comes to one that was collected."""
    return AdminClient(config.librdkafka())


def _told(described: "Future[Any]", configured: "Future[Any]") -> Topic | Exception:
    try:
        return _topic(described.result(), configured.result())
    except KafkaException as error:
        return error


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
