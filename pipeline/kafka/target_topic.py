"""The topic that takes a replay: made, held so that nothing is refused or eaten, given back."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from pipeline.config import KafkaConfig
from pipeline.errors import ServerError
from pipeline.kafka.topics import SECONDS, Topic, admin, describe
from pipeline.wait import wait_until

FOREVER = str(2**63 - 1)
RETENTION = {"retention.ms": "-1", "retention.bytes": "-1"}
HELD = RETENTION | {
    "cleanup.policy": "delete",  # no cleaner runs, records may lack keys, log starts can be set
    "compression.type": "producer",  # batches stay as they are
    "message.timestamp.type": "CreateTime",
    "message.timestamp.before.max.ms": FOREVER,
    "message.timestamp.after.max.ms": FOREVER,
}
"""A topic's configuration until the replay is proven."""

WITHIN = timedelta(seconds=30)


@dataclass(frozen=True)
class Target:
    """The topic, the overrides that it is to have in the end, and what they then make it delete."""

    topic: Topic
    overrides: dict[str, str]
    deletes: dict[str, str]


def deleting(topic: Topic) -> dict[str, str]:
    """Settings that say what the topic deletes, its own or the brokers'."""
    configured = topic.defaults | topic.overrides
    return {name: configured[name] for name in ("cleanup.policy", *RETENTION) if name in configured}


def existing(config: KafkaConfig, name: str) -> Topic | None:
    """Describe the topic, or None when there is none."""
    client = admin(config)
    try:
        if name not in client.list_topics(timeout=SECONDS).topics:
            return None
    except KafkaException as error:
        raise ServerError(f"topics on {config.bootstrap_servers}: {error}") from error
    (found,) = describe(config, [name])
    return found


def brokers(config: KafkaConfig) -> int:
    """How many brokers there are: no topic has more replicas."""
    client = admin(config)
    try:
        return len(client.list_topics(timeout=SECONDS).brokers)
    except KafkaException as error:
        raise ServerError(f"brokers on {config.bootstrap_servers}: {error}") from error


def create(
    config: KafkaConfig, name: str, partitions: int, replication: int, overrides: Mapping[str, str]
) -> Topic:
    """Make it, and wait until brokers know it."""
    client = admin(config)
    new = NewTopic(
        name, num_partitions=partitions, replication_factor=replication, config=dict(overrides)
    )
    try:
        client.create_topics([new], request_timeout=SECONDS)[name].result()
    except KafkaException as error:
        raise ServerError(f"cannot create {name} on {config.bootstrap_servers}: {error}") from error

    def unknown() -> str | None:
        known = client.list_topics(timeout=SECONDS).topics.get(name)
        led = known.partitions.values() if known else ()
        ready = len(led) == partitions and all(partition.leader >= 0 for partition in led)
        return None if ready else "its partitions have no leaders yet"

    wait_until(f"leaders of {name}", unknown, within=WITHIN)
    (found,) = describe(config, [name])
    return found


def held_over(overrides: Mapping[str, str], largest: int, replication: int) -> dict[str, str]:
    """Configuration for the time of a replay over one that is to come afterwards."""
    held = {**overrides, **HELD}
    allowed = held.get("max.message.bytes")
    if allowed is not None and int(allowed) < largest:
        held["max.message.bytes"] = str(largest)  # lowered since the record was written
    if int(held.get("min.insync.replicas", 1)) > replication:
        held["min.insync.replicas"] = str(replication)
    return held


def configure(config: KafkaConfig, name: str, overrides: Mapping[str, str]) -> None:
    """Give the topic exactly these overrides, and read them back.

    Raises ServerError when a broker refuses, or when it answers with others afterwards.
    """
    (topic,) = describe(config, [name])
    changes: list[tuple[str, str | None, AlterConfigOpType]] = [
        (key, value, AlterConfigOpType.SET)
        for key, value in overrides.items()
        if topic.overrides.get(key) != value
    ]
    changes += [(key, None, AlterConfigOpType.DELETE) for key in topic.overrides.keys() - overrides]
    if changes:
        _alter(config, name, changes)

    def differs() -> str | None:
        (now,) = describe(config, [name])
        return None if now.overrides == dict(overrides) else f"overrides are {now.overrides}"

    wait_until(f"{name} with overrides {dict(overrides)}", differs, within=WITHIN)


def _alter(
    config: KafkaConfig, name: str, changes: list[tuple[str, str | None, AlterConfigOpType]]
) -> None:
    entries = [
        ConfigEntry(key, value, incremental_operation=operation)
        for key, value, operation in changes
    ]
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
    client = admin(config)
    try:
        for done in client.incremental_alter_configs([resource], request_timeout=SECONDS).values():
            done.result()
    except KafkaException as error:
        what = ", ".join(key for key, _, _ in changes)
        gone = error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART
        hint = ": it was deleted meanwhile" if gone else ""
        raise ServerError(f"{name}: cannot set {what}{hint}: {error}") from error
