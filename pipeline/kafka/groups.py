"""Consumer groups: where each goes on, and which record it would read there."""

from collections.abc import Callable, Iterator
from typing import Any

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from pydantic import BaseModel, ConfigDict, TypeAdapter

from pipeline.config import KafkaConfig, PipelineConfig
from pipeline.errors import RestoreError, ServerError
from pipeline.kafka.surroundings import Spot, Surroundings, look
from pipeline.kafka.topics import SECONDS, cluster_id
from pipeline.repository import BackupSet, Repository
from pipeline.store import HashedStream

KIND = "offsets"
GROUPS = "groups.json"
NOT_BACKED_UP = ("share groups", "streams groups", "groups of Connect workers")
"""librdkafka lists the classic and the consumer protocol's groups only; workers commit nothing."""


class Position(BaseModel):
    """A committed offset; `around` is None where the topic or partition is gone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: str
    partition: int
    offset: int
    metadata: str
    leader_epoch: int | None
    around: Surroundings | None = None

    @property
    def spot(self) -> Spot:
        return Spot(self.topic, self.partition, self.offset)


class Group(BaseModel):
    """A group as its coordinator knew it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    state: str
    protocol: str
    simple: bool
    positions: tuple[Position, ...]


_GROUPS = TypeAdapter(tuple[Group, ...])


def take(
    config: PipelineConfig,
    repository: Repository,
    progress: Callable[[str], None] = lambda _: None,
    *,
    evidence: str | None = None,
) -> BackupSet:
    """Back up every group's committed offsets, with the record that stands next to each.

    `evidence` names the recovery that keeps them before it goes on; such a set is never the newest.

    Raises ServerError when a coordinator does not answer: a group that could not be read must not
    pass for one that has no offsets.
    """
    with repository.begin(KIND) as draft:
        found = list(committed(config.kafka))
        around = look(config.kafka, [p.spot for group in found for p in group.positions])
        groups = [_with_surroundings(group, around) for group in found]
        for group in groups:
            progress(f"{draft.label}: {group.name} ({group.state}): {len(group.positions)} offsets")
        content = _GROUPS.dump_json(tuple(groups), indent=1)
        stored = draft.put(GROUPS, [content])
        return draft.commit(_facts(config.kafka, groups) | {"evidence": evidence}, [stored])


def read(backup: BackupSet) -> tuple[Group, ...]:
    """The groups of a backup set. Raises RestoreError unless its content is what was committed."""
    if backup.kind != KIND:
        raise RestoreError(f"{backup.label}: expected a backup of {KIND}, found {backup.kind}")
    entry = backup.manifest.objects[0]
    with backup.store.open(entry.key) as stored:
        hashed = HashedStream(stored)
        content = hashed.read()
        if problem := hashed.damage(entry):
            raise RestoreError(f"{backup.label}: {problem}")
    return _GROUPS.validate_json(content)


def committed(config: KafkaConfig, names: tuple[str, ...] = ()) -> Iterator[Group]:
    """The groups of these names, or all, with the offsets that their coordinators hold now."""
    admin = client(config)
    try:
        listed = admin.list_consumer_groups(request_timeout=SECONDS).result()
        if listed.errors:
            raise ServerError(f"groups on {config.bootstrap_servers}: {listed.errors[0]}")
        for told in sorted(listed.valid, key=lambda told: str(told.group_id)):
            if not names or told.group_id in names:
                yield Group(
                    name=told.group_id,
                    state=told.state.name.lower(),
                    protocol=told.type.name.lower(),
                    simple=told.is_simple_consumer_group,
                    positions=tuple(_positions(admin, told.group_id)),
                )
    except KafkaException as error:
        raise ServerError(f"groups on {config.bootstrap_servers}: {error}") from error


def client(config: KafkaConfig) -> AdminClient:
    """Return an admin client to hold: an answer never comes to one that was collected."""
    return AdminClient(
        {**config.client, "bootstrap.servers": config.bootstrap_servers, "log_level": 2}
    )


def _positions(admin: AdminClient, group: str) -> Iterator[Position]:
    asked = [ConsumerGroupTopicPartitions(group)]
    told = admin.list_consumer_group_offsets(asked, request_timeout=SECONDS)[group].result()
    places: list[TopicPartition] = told.topic_partitions
    for place in sorted(places, key=lambda place: (place.topic, place.partition)):
        if place.error is not None:
            raise ServerError(f"group {group}, {place.topic}[{place.partition}]: {place.error}")
        if place.offset >= 0:  # below: nothing is committed
            yield Position(
                topic=place.topic,
                partition=place.partition,
                offset=place.offset,
                metadata=place.metadata or "",
                leader_epoch=place.leader_epoch,
            )


def _with_surroundings(group: Group, around: dict[Spot, Surroundings]) -> Group:
    seen = (p.model_copy(update={"around": around.get(p.spot)}) for p in group.positions)
    return group.model_copy(update={"positions": tuple(seen)})


def _facts(kafka: KafkaConfig, groups: list[Group]) -> dict[str, Any]:
    return {
        "cluster_id": cluster_id(kafka),
        "not_backed_up": list(NOT_BACKED_UP),
        "groups": {
            group.name: {
                "state": group.state,
                "protocol": group.protocol,
                "offsets": len(group.positions),
                "topics": sorted({position.topic for position in group.positions}),
            }
            for group in groups
        },
    }
