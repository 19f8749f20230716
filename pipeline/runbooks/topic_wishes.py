"""Which replays bring a topic back: the archive first, then what was kept of it, in order."""

from collections.abc import Collection, Iterator

from pipeline.kafka.archive.reading import Archived, archived
from pipeline.kafka.log.batches import walk
from pipeline.kafka.replay.replay_plan import Mode, Range
from pipeline.kafka.replay.replay_wish import Wish
from pipeline.repository.sets import BackupSet
from pipeline.runbooks.topic_evidence import Evidence


def wishes(
    topic: str, evidence: Evidence, replication: int | None, without: tuple[str, ...]
) -> Iterator[Wish]:
    """List the replays of a topic: the archive, and the same log's records behind its end."""
    label = evidence.archive.label
    yield Wish(topic, label, replication=replication, without_settings=without)
    if evidence.kept is not None and evidence.same_life(topic):
        yield from _tails(topic, evidence.archive, evidence.kept)


def _tails(topic: str, archive: BackupSet, kept: BackupSet) -> Iterator[Wish]:
    """What was kept beyond the archive's end, partition by partition."""
    if (found := kept.manifest.facts["topics"].get(topic)) is None:  # it could not be read
        return
    now = found["partitions"]
    for partition, then in archive.manifest.facts["topics"][topic]["partitions"].items():
        first = max(then["end"], now[partition]["log_start"])
        if now[partition]["end"] > first:
            yield Wish(
                topic,
                kept.label,
                mode=Mode.EXACT,
                partitions=(int(partition),),
                offsets=Range(first, None),
                append=True,
            )


def strangers(topic: str, kept: BackupSet, ours: Collection[int]) -> Iterator[Wish]:
    """What others wrote to another life of the topic, or among a replay of ours: behind the rest.

    `ours` are the producer ids of replays; their batches come back from the archive.
    """
    for partition in archived(kept, [topic]):
        for first, end in _runs(partition, ours):
            yield Wish(
                topic,
                kept.label,
                mode=Mode.DENSE,
                partitions=(partition.index.partition,),
                offsets=Range(first, end),
                append=True,
            )


def _runs(partition: Archived, ours: Collection[int]) -> Iterator[tuple[int, int]]:
    """Stretches of offsets that hold records of others and none of ours."""
    first = end = None
    for piece in partition.pieces():
        for block in piece.blocks:
            for batch, _ in walk(block, str(partition.index)):
                if batch.control:
                    continue
                if batch.producer_id not in ours:
                    first = batch.base_offset if first is None else first
                    end = batch.next_offset
                elif first is not None and end is not None:
                    yield first, end
                    first = None
    if first is not None and end is not None:
        yield first, end
