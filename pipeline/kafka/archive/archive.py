"""An archive of topics: raw batches from log start to one common end, every offset explained."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from pipeline.config import KafkaConfig, PipelineConfig
from pipeline.errors import BackupError, ServerError
from pipeline.kafka.archive import exports, stored
from pipeline.kafka.archive.partition import Partition, Run
from pipeline.kafka.archive.segments import Index
from pipeline.kafka.archive.stored import Pool
from pipeline.kafka.archive.trouble import Trouble
from pipeline.kafka.cluster.raw import RawReader
from pipeline.kafka.cluster.topics import (
    Extent,
    Topic,
    cluster_id,
    described,
    every,
    extents,
    known_extents,
)
from pipeline.kafka.log.gaps import Reason
from pipeline.kafka.log.place import Place
from pipeline.repository import kinds
from pipeline.repository.sets import BackupSet, Draft, Note, Repository
from pipeline.repository.store import StoredObject
from pipeline.wait import telling

KIND = kinds.TOPICS.name
FETCH = 8 << 20
PARALLEL = 4
NOT_ARCHIVED = ("consumer-group offsets: pipeline backup offsets",)


Reach = Callable[[Callable[[str], None]], Mapping[str, Any]]
"""Takes a consistency point, waits until its events were delivered, and tells both as JSON."""


Beside = Callable[[Draft], tuple[Mapping[str, Any], Sequence[StoredObject]]]
"""Stores more objects of a set, and tells the facts that go with them."""


def _no_point(_say: Callable[[str], None]) -> dict[str, Any]:
    return {"point": None, "reason": "it was not asked for"}


def take(
    config: PipelineConfig,
    repository: Repository,
    topics: Sequence[str] = (),
    progress: Callable[[str], None] = lambda _: None,
    *,
    full: bool = False,
    limit: int | None = None,
    exclude: Sequence[str] = (),
    partly: bool = False,
    reach: Reach = _no_point,
    evidence: str | None = None,
    note: Note | None = None,
    kind: str = KIND,
    beside: Beside | None = None,
) -> BackupSet:
    """Archive these topics, or all but the brokers' own, and commit them as one backup set.

    What older runs have stored is not read again, unless `full`; nor is what an interrupted run
    has stored. `limit` takes at least that many records of each topic, from its log start, and no
    more than a fetch beyond. `exclude` are names or patterns of topics that are left out. `reach`
    tells the consistency point once it was reached. Every partition ends where it was decided after
    that: at its last stable offset. Memory holds a few fetches for each of
    PARALLEL partitions, whatever the topics' size. `evidence` names the recovery that salvages
    them: such a set is no backup. `note` adds facts that others know. A set of another `kind` is an
    archive as well; `beside` stores what belongs to it, and tells its facts.

    Raises ServerError where the brokers fail, BackupError where they hold damaged batches: no set
    is committed then. With `partly` a topic that cannot be archived whole stops no other: the set
    is committed, `left_out` tells what is missing. Offsets that are LOST are told by `lost`.
    """
    draft = repository.begin(kind)

    def say(line: str) -> None:
        progress(f"{draft.label}: {line}")

    # the reader first: who is refused learns it at once
    with telling(say), RawReader(config.kafka, FETCH, say) as reader:
        cluster = cluster_id(config.kafka)
        point = reach(say)
        # behind the wait: a connector makes a topic with its first event
        wished, excluded, internal = _wished(config.kafka, topics, exclude, say)
        trouble = Trouble(say, strict=not partly)
        decided = datetime.now(UTC)
        found, ends = _looked_up(config.kafka, wished, trouble)
        pools = {} if full or limit else stored.pools(repository, kind, found, say)
        run = Run(
            store=repository.store,
            prefix=draft.prefix,
            reader=reader,
            log_start=partial(_log_start, config.kafka),
            decided=decided,
            stopped=threading.Event(),
            progress=say,
        )
        partitions = [
            Partition(run, (topic, place), ends[place], pools.get(place, Pool()), share)
            for topic in found
            for share in [_share(limit, topic)]
            for place in topic.places
            if place in ends
        ]
        indexes = _run(partitions, run.stopped, trouble, lambda index: say(_told(index, limit)))
        if not indexes and trouble.found:
            raise ServerError(f"nothing could be archived: {'; '.join(trouble.lines())}")
        exported = exports.everything(reader)
    facts: dict[str, Any] = {
        "cluster_id": cluster,
        "decided": decided.isoformat(),
        "scope": _scope(topics, limit, exclude, whole=not trouble.found),
        "limit": limit,
        "consistency_point": point,
        "exports": exported,
        "not_archived": [*NOT_ARCHIVED, *internal],
        "excluded": excluded,
        "incomplete": trouble.told,
        "topics": {
            topic.name: _facts(topic, held, pools)
            for topic in found
            if (held := [i for i in indexes if i.topic == topic.name])
        },
    }
    facts |= {} if evidence is None else {kinds.EVIDENCE: evidence}
    objects = [each for partition in partitions for each in partition.objects]
    if beside is not None:
        more, others = beside(draft)
        facts, objects = {**facts, **more}, [*objects, *others]
    return draft.commit(facts, objects, note)


def left_out(backup: BackupSet) -> list[str]:
    """Topics that were wished for and are not whole in the set, each with the reason."""
    told: Mapping[str, str] = backup.manifest.facts.get("incomplete", {})
    return [f"{topic} is not archived whole: {why}" for topic, why in told.items()]


def lost(backup: BackupSet) -> list[str]:
    """Partitions with offsets that nothing explains: how much, and where it is named."""
    return [
        f"{topic}[{partition}]: {told['gaps'][Reason.LOST]:,} offsets are LOST"
        for topic, facts in backup.manifest.facts["topics"].items()
        for partition, told in facts["partitions"].items()
        if Reason.LOST in told["gaps"]
    ]


def _wished(
    kafka: KafkaConfig,
    topics: Sequence[str],
    exclude: Sequence[str],
    say: Callable[[str], None],
) -> tuple[list[str], list[str], list[str]]:
    """Names of what is to be archived, of what was left out by name, and of the brokers' own."""
    names, internal = (list(topics), list[str]()) if topics else every(kafka)
    excluded = [name for name in names if any(fnmatchcase(name, each) for each in exclude)]
    if exclude:
        say(f"left out by --exclude {' '.join(exclude)}: {', '.join(excluded) or 'no topic'}")
    if internal:
        say(f"left out, the brokers' own: {', '.join(internal)}")
    return [name for name in names if name not in excluded], excluded, internal


def _looked_up(
    kafka: KafkaConfig, names: Sequence[str], trouble: Trouble
) -> tuple[list[Topic], dict[Place, Extent]]:
    """What is to be archived, and up to where; of partitions that somebody answers for."""
    found, missing = described(kafka, names)
    trouble.of_topics(missing)
    ends, unknown = known_extents(kafka, [place for topic in found for place in topic.places])
    trouble.of_partitions(unknown)
    return found, ends


def _log_start(kafka: KafkaConfig, place: Place) -> int:
    return extents(kafka, [place])[place].start


def _run(
    partitions: Sequence[Partition],
    stopped: threading.Event,
    trouble: Trouble,
    finished: Callable[[Index], None],
) -> list[Index]:
    """Archive all of them; of one that fails what was stored of it, unless the run is strict."""
    indexes: list[Index] = []
    with ThreadPoolExecutor(PARALLEL, "archive") as pool:
        running = {pool.submit(partition.archive): partition for partition in partitions}
        try:
            for done in as_completed(running):
                partition = running[done]
                try:
                    index: Index | None = done.result()
                except (BackupError, ServerError) as error:
                    trouble.of_partition(partition.place, error)
                    index = partition.archived_so_far()
                if index is not None:
                    indexes.append(index)
                    finished(index)
        finally:
            stopped.set()  # one that stops the run stops the others: no set comes of them
            for waiting in running:
                waiting.cancel()
    return indexes


def _told(index: Index, limit: int | None) -> str:
    before = sum(segment.bytes for segment in index.segments if segment.end <= index.added)
    taken_over = f", {before:,} of them stored before" if before else ""
    gaps = index.gaps
    lost = f", {gaps[Reason.LOST]:,} offsets LOST" if Reason.LOST in gaps else ""
    rest = index.high_watermark - index.end
    why = "behind an open transaction" if limit is None else "beyond the limit"
    left_out = f", {rest:,} offsets {why} left out" if rest else ""
    return f"{index} to {index.end}: {index.bytes:,} bytes of batches{taken_over}{lost}{left_out}"


def _scope(topics: Sequence[str], limit: int | None, exclude: Sequence[str], *, whole: bool) -> str:
    """What this set can take the place of: retention keeps the newest of each scope."""
    asked = ", ".join(sorted(topics)) or "all topics"
    parts = [
        f" but {', '.join(sorted(exclude))}" if exclude else "",
        "" if limit is None else f", at most {limit} records",
        "" if whole else ", not whole",
    ]
    return asked + "".join(parts)


def _share(limit: int | None, topic: Topic) -> int | None:
    """How many records of one partition are enough: rounded up."""
    return None if limit is None else -(-limit // len(topic.partitions))


def _facts(topic: Topic, indexes: Sequence[Index], pools: Mapping[Place, Pool]) -> dict[str, Any]:
    former = {(each.topic, each.partition): pool.end for each, pool in pools.items()}
    return {
        "topic_id": str(topic.topic_id),
        "replication": topic.replication,
        "partition_count": len(topic.partitions),
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
