"""Consumer groups: where each goes on, and which record it would read there."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
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
from pipeline.kafka.cluster.momentary import SECONDS, ask_again, ask_each, reason
from pipeline.kafka.cluster.topics import Missing, cluster_id, listed
from pipeline.kafka.groups.surroundings import UNDECIDED, Surroundings, look
from pipeline.kafka.log.place import Spot
from pipeline.repository import kinds
from pipeline.repository.sets import BackupSet, Note, Repository
from pipeline.repository.store import HashedStream
from pipeline.wait import telling

KIND = kinds.OFFSETS.name
GROUPS = "groups.json"
OFFSETS_TOPIC = "__consumer_offsets"
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
    partly: bool = False,
    evidence: str | None = None,
    note: Note | None = None,
) -> BackupSet:
    """Back up every group's committed offsets, with the record that stands next to each.

    `evidence` names the recovery that salvages them: such a set is no backup. `note` adds facts.

    Raises ServerError when a coordinator does not answer: a group that could not be read must not
    pass for one that has no offsets. With `partly` the others are backed up all the same, and
    `left_out` tells what is missing.
    """
    with telling(progress), repository.begin(KIND) as draft:
        found, missing = known(config.kafka)
        _refuse(config.kafka, {} if partly else missing)
        around = look(config.kafka, _spots(found), partly=partly)
        groups = [_with_surroundings(group, around) for group in found]
        for group in groups:
            progress(f"{draft.label}: {group.name} ({group.state}): {len(group.positions)} offsets")
            for at in group.positions:
                if at.around is not None and at.around.unseen:
                    progress(f"{draft.label}: {group.name}: {at.spot}: {at.around.unseen}")
        progress(f"{draft.label}: not backed up: {', '.join(NOT_BACKED_UP)}")
        content = _GROUPS.dump_json(tuple(groups), indent=1)
        stored = draft.put(GROUPS, [content])
        facts = _facts(config.kafka, groups, missing)
        facts |= {} if evidence is None else {kinds.EVIDENCE: evidence}
        return draft.commit(facts, [stored], note)


def left_out(backup: BackupSet) -> list[str]:
    """Groups that the set should hold and does not, or not with what stands at their offsets."""
    told: Missing = backup.manifest.facts.get("incomplete", {})
    return [f"{group}: {why}" for group, why in told.items()]


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
    """The groups of these names, or all, with the offsets that their coordinators hold now.

    Raises ServerError when a coordinator does not answer.
    """
    found, missing = known(config, names)
    _refuse(config, missing)
    yield from found


def known(config: KafkaConfig, names: tuple[str, ...] = ()) -> tuple[list[Group], Missing]:
    """Groups as far as their coordinators answer; which are not known, and why, comes second."""
    admin = client(config)
    missing = dict(_unlisted(config))
    valid = _listed(admin, config, missing)
    told = {each.group_id: each for each in valid if not names or each.group_id in names}
    what = f"groups on {config.bootstrap_servers}"
    held, failed = ask_each(what, sorted(told), lambda left: _positions(admin, left))
    missing |= {group: reason(error) for group, error in failed.items()}
    found = [
        Group(
            name=name,
            state=told[name].state.name.lower(),
            protocol=told[name].type.name.lower(),
            simple=told[name].is_simple_consumer_group,
            positions=held[name],
        )
        for name in sorted(held)
    ]
    return found, missing


def _refuse(config: KafkaConfig, missing: Missing) -> None:
    for group, why in missing.items():
        raise ServerError(f"group {group} on {config.bootstrap_servers}: {why}")


def _unlisted(config: KafkaConfig) -> Iterator[tuple[str, str]]:
    """Groups without a coordinator are in no list of groups: nobody knows their names."""
    of_offsets = listed(config).topics.get(OFFSETS_TOPIC)
    for number, partition in sorted(of_offsets.partitions.items()) if of_offsets else ():
        if partition.leader < 0:
            yield f"(all of {OFFSETS_TOPIC}[{number}])", "it has no leader, nobody lists its groups"


def _listed(admin: AdminClient, config: KafkaConfig, missing: dict[str, str]) -> list[Any]:
    told: list[Any] = []

    def ask() -> None:
        told[:] = [admin.list_consumer_groups(request_timeout=SECONDS).result()]
        for error in told[0].errors:
            raise error if isinstance(error, KafkaException) else KafkaException(error)

    try:
        ask_again(f"groups on {config.bootstrap_servers}", ask)
    except ServerError as error:
        if not told:
            raise
        missing["(all of one coordinator)"] = str(error)
    return list(told[0].valid)


def client(config: KafkaConfig) -> AdminClient:
    """Return an admin client to hold: an answer never comes to one that was collected."""
    return AdminClient(
        {**config.client, "bootstrap.servers": config.bootstrap_servers, "log_level": 2}
    )


def _positions(
    admin: AdminClient, groups: Sequence[str]
) -> dict[str, tuple[Position, ...] | Exception]:
    asked = {
        group: admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group)], request_timeout=SECONDS
        )[group]
        for group in groups
    }
    return {group: _positions_of(told) for group, told in asked.items()}


def _positions_of(told: "Future[Any]") -> tuple[Position, ...] | Exception:
    try:
        places: list[TopicPartition] = told.result().topic_partitions
    except KafkaException as error:
        return error
    for place in places:
        if place.error is not None:
            return KafkaException(place.error)
    return tuple(
        Position(
            topic=place.topic,
            partition=place.partition,
            offset=place.offset,
            metadata=place.metadata or "",
            leader_epoch=place.leader_epoch,
        )
        for place in sorted(places, key=lambda place: (place.topic, place.partition))
        if place.offset >= 0  # below: nothing is committed
    )


def _spots(groups: Sequence[Group]) -> list[Spot]:
    return [position.spot for group in groups for position in group.positions]


def _with_surroundings(group: Group, around: dict[Spot, Surroundings]) -> Group:
    seen = (p.model_copy(update={"around": around.get(p.spot)}) for p in group.positions)
    return group.model_copy(update={"positions": tuple(seen)})


def _facts(kafka: KafkaConfig, groups: list[Group], missing: Missing) -> dict[str, Any]:
    return {
        "cluster_id": cluster_id(kafka),
        "not_backed_up": list(NOT_BACKED_UP),
        "incomplete": dict(missing) | dict(_not_looked_at(groups)),
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


def _not_looked_at(groups: list[Group]) -> Iterator[tuple[str, str]]:
    """Groups whose offsets are there, but not what stands at them.

    That it stands behind an open transaction is how it is, and no fault of the backup.
    """
    for group in groups:
        for at in group.positions:
            if at.around is not None and at.around.unseen not in {None, UNDECIDED}:
                yield group.name, f"{at.spot}: {at.around.unseen}"
