"""What a topic holds is kept as evidence, and only a topic that was kept whole is deleted.

Between keeping and deleting others may write: a producer whose owner was not told, or a night that
passed before the recovery was resumed. So the topic takes no more records while its ends are
compared with what was kept, and goes only where they are equal.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from confluent_kafka import KafkaException

from pipeline.config import PipelineConfig
from pipeline.errors import LossNotAccepted, ServerError
from pipeline.kafka.archive import archive
from pipeline.kafka.cluster.topics import SECONDS, Topic, admin, extents
from pipeline.kafka.replay import target_topic
from pipeline.repository.sets import BackupSet, Repository
from pipeline.wait import wait_until

WITHIN = timedelta(seconds=60)
NO_RECORDS = {"max.message.bytes": "0"}
"""With it a leader refuses every batch, whatever its producer's acks."""

Ends = dict[str, int]
"""Where the partitions of a topic end, by their number as text."""


@dataclass(frozen=True)
class Kept:
    """What was kept of a topic: where each partition ended then, and what could not be kept."""

    topic_id: str
    ends: Mapping[str, int]
    unkept: Sequence[str] = ()


def keep(
    config: PipelineConfig,
    repository: Repository,
    topics: Sequence[str],
    recovery: str,
    progress: Callable[[str], None],
) -> tuple[BackupSet | None, dict[str, Kept]]:
    """Archive what these topics hold, as evidence of a recovery; it never counts as "latest"."""
    if not topics:
        return None, {}
    kept = archive.take(config, repository, topics, progress, evidence=recovery)
    told = {
        name: Kept(
            facts["topic_id"],
            {number: found["high_watermark"] for number, found in facts["partitions"].items()},
            list(_unkept(name, facts["partitions"])),
        )
        for name, facts in kept.manifest.facts["topics"].items()
    }
    return kept, told


def _unkept(topic: str, partitions: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    for number, found in partitions.items():
        if rest := found["high_watermark"] - found["end"]:
            yield (
                f"{topic}[{number}]: {rest:,} offsets from {found['end']} on are behind an open "
                "transaction"
            )


def refuse_unkept(kept: Mapping[str, Kept], given_up: Collection[str]) -> None:
    """Raise LossNotAccepted for records that are in no set, unless their topic is given up."""
    wrong = {name: one.unkept for name, one in kept.items() if one.unkept and name not in given_up}
    if wrong:
        told = "; ".join(line for lines in wrong.values() for line in lines)
        names = " ".join(f"--lose {name}" for name in wrong)
        raise LossNotAccepted(
            f"{told}. What cannot be kept is not removed: end the transaction (kafka-transactions "
            f"lists and aborts hanging ones) and go on, or give it up by name: {names}"
        )


def grown(config: PipelineConfig, topic: Topic, kept: Kept) -> str | None:
    """Tell what the topic holds beyond what was kept of it, or None."""
    if str(topic.topic_id) != kept.topic_id:
        return f"{topic.name} was made anew since it was kept: topic id {topic.topic_id}"
    for place, log in extents(config.kafka, topic.places).items():
        was = kept.ends.get(str(place.partition))
        if was is None or log.high_watermark > was:
            return f"{place} ends at {log.high_watermark}, kept up to {was or 0}"
    return None


def remove(config: PipelineConfig, topic: Topic, kept: Kept | None) -> str | None:
    """Delete the topic and answer None, or say what it holds beyond what was kept and leave it.

    Without `kept` it was given up by name, or nothing of it can be read. A kill in between leaves
    a topic that takes no records: nothing more was acknowledged, and the next run goes on.
    """
    if kept is None:
        _delete(config, topic)
        return None
    with _closed_to_records(config, topic):
        if more := grown(config, topic, kept):
            return more
        _delete(config, topic)
    return None


@contextmanager
def _closed_to_records(config: PipelineConfig, topic: Topic) -> Iterator[None]:
    """Let the topic take no record within; it is as it was afterwards, unless it is gone."""
    target_topic.configure(config.kafka, topic.name, {**topic.overrides, **NO_RECORDS})
    try:
        yield
    finally:
        if _present(config, topic) is None:
            target_topic.configure(config.kafka, topic.name, topic.overrides)


def _delete(config: PipelineConfig, topic: Topic) -> None:
    client = admin(config.kafka)
    try:
        client.delete_topics([topic.name], request_timeout=SECONDS)[topic.name].result()
    except KafkaException as error:
        raise ServerError(f"cannot delete {topic.name}: {error}") from error
    wait_until(f"{topic.name} is gone", partial(_gone, config, topic), within=WITHIN)


def _gone(config: PipelineConfig, topic: Topic) -> str | None:
    return "it is there" if _present(config, topic) is None else None


def _present(config: PipelineConfig, topic: Topic) -> str | None:
    """Answer None while the very topic is there, else what stands in its place."""
    found = target_topic.existing(config.kafka, topic.name)
    if found is None:
        return "it is gone"
    return None if found.topic_id == topic.topic_id else f"topic id {found.topic_id}"
