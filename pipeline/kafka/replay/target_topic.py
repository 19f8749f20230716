"""The topic that takes a replay: made, held so that nothing is refused or eaten, given back."""

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import count

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
from pipeline.kafka.cluster.momentary import EVERY, PATIENCE, SECONDS, ask_again, code_of
from pipeline.kafka.cluster.topics import Topic, admin, describe, listed
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

THROTTLES = frozenset(
    {"leader.replication.throttled.replicas", "follower.replication.throttled.replicas"}
)
"""What a reassignment leaves behind names brokers of then, and is no setting of the topic."""
LIMIT = "max.message.bytes"


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
    if name not in listed(config).topics:
        return None
    (found,) = describe(config, [name])
    return found


def brokers(config: KafkaConfig) -> int:
    """How many brokers there are: no topic has more replicas."""
    return len(listed(config).brokers)


def create(
    config: KafkaConfig, name: str, partitions: int, replication: int, overrides: Mapping[str, str]
) -> Topic:
    """Make it, and wait until brokers know it."""
    client = admin(config)
    new = NewTopic(
        name, num_partitions=partitions, replication_factor=replication, config=dict(overrides)
    )
    what = f"cannot create {name} on {config.bootstrap_servers}"
    tries = count(1)

    def make() -> None:
        number = next(tries)
        try:
            client.create_topics([new], request_timeout=SECONDS)[name].result()
        except KafkaException as error:
            made_before = number > 1 and code_of(error) == KafkaError.TOPIC_ALREADY_EXISTS
            if not made_before:  # by a try whose answer did not come
                raise

    ask_again(what, make)

    def unknown() -> str | None:
        known = listed(config).topics.get(name)
        led = known.partitions.values() if known else ()
        ready = len(led) == partitions and all(partition.leader >= 0 for partition in led)
        return None if ready else "its partitions have no leaders yet"

    wait_until(f"leaders of {name}", unknown, within=PATIENCE, every=EVERY)
    (found,) = describe(config, [name])
    return found


def due(
    config: KafkaConfig, overrides: Mapping[str, str], without: Collection[str] = ()
) -> dict[str, str]:
    """Answer the archived overrides that a topic gets here.

    Left out are those that the operator named, throttles, and what these brokers do not know.
    """
    wanted = {n: v for n, v in overrides.items() if n not in THROTTLES and n not in without}
    unknown = {name for name, why in refused_settings(config, wanted) if _UNKNOWN in why}
    return {n: v for n, v in wanted.items() if n not in unknown}


_UNKNOWN = "Unknown topic config name"
"""As LogConfig.validateNames says it."""


def refused_settings(config: KafkaConfig, overrides: Mapping[str, str]) -> list[tuple[str, str]]:
    """Ask the brokers which overrides they would not take, and why; nothing is made."""
    if _would_make(config, overrides) is None:
        return []
    told = ((name, _would_make(config, {name: value})) for name, value in overrides.items())
    return [(name, why) for name, why in told if why is not None]


def _would_make(config: KafkaConfig, overrides: Mapping[str, str]) -> str | None:
    """Tell why a topic with these overrides would be refused, or None."""
    name = f"validated-{secrets.token_hex(8)}"
    new = NewTopic(name, num_partitions=1, replication_factor=1, config=dict(overrides))
    client = admin(config)

    def ask() -> str | None:
        try:
            made = client.create_topics([new], request_timeout=SECONDS, validate_only=True)
            made[name].result()
        except KafkaException as error:
            known: KafkaError = error.args[0]
            if known.code() in {KafkaError.INVALID_CONFIG, KafkaError.POLICY_VIOLATION}:
                return known.str()
            raise
        return None

    return ask_again(f"topics on {config.bootstrap_servers}", ask)


def held_over(topic: Topic, overrides: Mapping[str, str], largest: int) -> dict[str, str]:
    """Configuration for the time of a replay over one that is to come afterwards."""
    held = {**overrides, **HELD}
    if int((topic.defaults | held).get(LIMIT, 0)) < largest:
        held[LIMIT] = str(largest)  # lowered since the record was written, or by other brokers
    if int(held.get("min.insync.replicas", 1)) > topic.replication:
        held["min.insync.replicas"] = str(topic.replication)
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

    wait_until(f"{name} with overrides {dict(overrides)}", differs, within=PATIENCE)


def _alter(
    config: KafkaConfig, name: str, changes: list[tuple[str, str | None, AlterConfigOpType]]
) -> None:
    entries = [
        ConfigEntry(key, value, incremental_operation=operation)
        for key, value, operation in changes
    ]
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
    client = admin(config)

    def alter() -> None:
        for done in client.incremental_alter_configs([resource], request_timeout=SECONDS).values():
            done.result()

    what = ", ".join(key for key, _, _ in changes)
    try:
        ask_again(f"{name}: cannot set {what}", alter)
    except ServerError as error:
        if name not in listed(config).topics:
            raise ServerError(f"{name}: cannot set {what}: it was deleted meanwhile") from error
        raise
