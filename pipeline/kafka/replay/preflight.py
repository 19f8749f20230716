"""What a target would refuse of a replay, found out before the first record is sent."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from pipeline.config import KafkaConfig
from pipeline.errors import RecoveryRefused
from pipeline.kafka.cluster.topics import Topic
from pipeline.kafka.replay import target_topic
from pipeline.kafka.replay.replay_plan import PartitionPlan

RECODED = 512
"""Bytes that a batch may grow by when it is written anew."""


def refuse(name: str, problems: Iterable[str]) -> None:
    """Raise RecoveryRefused with all that is in the way, or nothing."""
    if found := list(problems):
        raise RecoveryRefused(f"{name}: {'; '.join(found)}; nothing was written")


def of_existing(
    topic: Topic,
    bounds: Mapping[int, tuple[int, int]],
    plans: Sequence[PartitionPlan],
    *,
    partitions: int,
    append: bool,
) -> Iterator[str]:
    """Problems of a topic that is there already, by its log starts and ends."""
    if len(topic.partitions) != partitions:
        yield (
            f"it has {len(topic.partitions)} partitions, the archived topic had {partitions}: "
            "records would not be where their keys lead"
        )
        return
    for plan in plans:
        start, end = bounds[plan.partition]
        if end > 0 and not append:
            held = f"{end - start:,} offsets" if end > start else f"nothing, but ends at {end:,}"
            yield f"partition {plan.partition} holds {held}: --append, or another name with --as"


def of_new(archived: int, replication: int | None, config: KafkaConfig) -> Iterator[str]:
    """Problems of a topic that is to be made with as many replicas."""
    wanted, brokers = replication or archived, target_topic.brokers(config)
    if wanted > brokers:
        asked = "asked for" if replication else "as archived"
        yield f"{wanted} replicas, {asked}, and {brokers} brokers: say --replication {brokers}"


def of_settings(
    config: KafkaConfig, overrides: Mapping[str, str], without: Collection[str]
) -> Iterator[str]:
    """Problems of archived settings that these brokers know and would not take."""
    wanted = target_topic.due(config, overrides, without)
    for name, why in target_topic.refused_settings(config, wanted):
        yield f"{name}={wanted[name]}: {why}: say --without-setting {name}"
