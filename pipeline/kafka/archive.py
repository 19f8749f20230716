"""An archive of topics: raw batches from log start to one common end, every offset explained."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.config import PipelineConfig
from pipeline.kafka import consistency, exports, stored
from pipeline.kafka.brokers import Place
from pipeline.kafka.gaps import Reason
from pipeline.kafka.partition import Partition, Run
from pipeline.kafka.raw import RawReader
from pipeline.kafka.segments import Index
from pipeline.kafka.stored import Pool
from pipeline.kafka.topics import Topic, cluster_id, describe, extents
from pipeline.repository import BackupSet, Repository

KIND = "topics"
FETCH = 8 << 20
PARALLEL = 4
NOT_ARCHIVED = ("consumer-group offsets: pipeline backup offsets",)


def take(
    config: PipelineConfig,
    repository: Repository,
    topics: Sequence[str] = (),
    progress: Callable[[str], None] = lambda _: None,
    *,
    full: bool = False,
    limit: int | None = None,
    patience: timedelta = consistency.WITHIN,
    evidence: str | None = None,
) -> BackupSet:
    """Archive these topics, or all but the brokers' own, and commit them as one backup set.

    What older runs have stored is not read again, unless `full`; nor is what an interrupted run
    has stored. `limit` takes at least that many records of each topic, from its log start, and no
    more than a fetch beyond. The slot's consumer gets `patience` to reach the consistency point.
    Every partition ends where it was decided after that: at its last stable offset. Memory holds a
    few fetches for each of PARALLEL partitions, whatever the topics' size. `evidence` names the
    recovery that keeps what damaged topics hold: such a set is never the newest.

    Raises ServerError where the brokers fail, BackupError where they hold damaged batches: no set
    is committed then. Offsets that are LOST are told by `lost`, and the set is committed.
    """
    draft = repository.begin(KIND)

    def say(line: str) -> None:
        progress(f"{draft.label}: {line}")

    with RawReader(config.kafka, FETCH) as reader:  # first: who is refused learns it at once
        point = consistency.reach(config, say, within=patience)
        # behind the wait: a connector makes a topic with its first event
        found = describe(config.kafka, topics)
        pools = {} if full or limit else stored.pools(repository, KIND, found, say)
        decided = datetime.now(UTC)
        ends = extents(config.kafka, [place for topic in found for place in topic.places])
        stopped = threading.Event()
        run = Run(
            store=repository.store,
            prefix=draft.prefix,
            reader=reader,
            log_start=lambda place: extents(config.kafka, [place])[place].start,
            decided=decided,
            stopped=stopped,
            progress=say,
        )
        partitions = [
            Partition(
                run, (topic, place), ends[place], pools.get(place, Pool()), _share(limit, topic)
            )
            for topic in found
            for place in topic.places
        ]
        indexes = _run(partitions, stopped, lambda index: say(_told(index, limit)))
        exported = exports.everything(reader)
    facts = {
        "cluster_id": cluster_id(config.kafka),
        "decided": decided.isoformat(),
        "scope": _scope(topics, limit),
        "evidence": evidence,
        "limit": limit,
        "consistency_point": point,
        "exports": exported,
        "not_archived": list(NOT_ARCHIVED),
        "topics": {
            topic.name: _facts(topic, [i for i in indexes if i.topic == topic.name], pools)
            for topic in found
        },
    }
    return draft.commit(facts, (each for partition in partitions for each in partition.objects))


def lost(backup: BackupSet) -> list[str]:
    """Partitions with offsets that nothing explains: how much, and where it is named."""
    return [
        f"{topic}[{partition}]: {told['gaps'][Reason.LOST]:,} offsets are LOST"
        for topic, facts in backup.manifest.facts["topics"].items()
        for partition, told in facts["partitions"].items()
        if Reason.LOST in told["gaps"]
    ]


def _run(
    partitions: Sequence[Partition],
    stopped: threading.Event,
    finished: Callable[[Index], None],
) -> list[Index]:
    with ThreadPoolExecutor(PARALLEL, "archive") as pool:
        running = [pool.submit(partition.archive) for partition in partitions]
        try:
            for done in as_completed(running):
                finished(done.result())
        finally:
            stopped.set()  # one that failed stops the others: no set comes of them
            for waiting in running:
                waiting.cancel()
    return [done.result() for done in running]


def _told(index: Index, limit: int | None) -> str:
    before = sum(segment.bytes for segment in index.segments if segment.end <= index.added)
    taken_over = f", {before:,} of them stored before" if before else ""
    gaps = index.gaps
    lost = f", {gaps[Reason.LOST]:,} offsets LOST" if Reason.LOST in gaps else ""
    rest = index.high_watermark - index.end
    why = "behind an open transaction" if limit is None else "beyond the limit"
    left_out = f", {rest:,} offsets {why} left out" if rest else ""
    return f"{index} to {index.end}: {index.bytes:,} bytes of batches{taken_over}{lost}{left_out}"


def _scope(topics: Sequence[str], limit: int | None) -> str:
    """What this set can take the place of: retention keeps the newest of each scope."""
    asked = ", ".join(sorted(topics)) or "all topics"
    return asked if limit is None else f"{asked}, at most {limit} records"


def _share(limit: int | None, topic: Topic) -> int | None:
    """How many records of one partition are enough: rounded up."""
    return None if limit is None else -(-limit // len(topic.partitions))


def _facts(topic: Topic, indexes: Sequence[Index], pools: Mapping[Place, Pool]) -> dict[str, Any]:
    former = {(each.topic, each.partition): pool.end for each, pool in pools.items()}
    return {
        "topic_id": str(topic.topic_id),
        "replication": topic.replication,
        "overrides": topic.overrides,
        "defaults": topic.defaults,
        "partitions": {
            str(index.partition): _extent(index, former.get((index.topic, index.partition)))
            for index in indexes
        },
    }


def _extent(index: Index, former_end: int | None) -> dict[str, Any]:
    """What a manifest says of a partition; `missed` went before any run could archive it."""
    missed = former_end is not None and former_end < index.log_start
    return {
        "start": index.start,
        "log_start": index.log_start,
        "added": index.added,
        "end": index.end,
        "high_watermark": index.high_watermark,
        "records": index.records,
        "gaps": {str(why): offsets for why, offsets in index.gaps.items()},
        "leader_epochs": index.leader_epochs,
        "missed": [former_end, index.log_start] if missed else None,
        "head": index.head,
    }
