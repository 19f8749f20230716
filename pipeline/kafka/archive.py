"""An archive of topics: raw batches from log start to one common end, every offset explained."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from typing import Any

from pipeline.config import PipelineConfig
from pipeline.errors import BackupError
from pipeline.kafka import segments
from pipeline.kafka.account import Account
from pipeline.kafka.gaps import Reason, totals
from pipeline.kafka.raw import OffsetGone, Place, RawReader
from pipeline.kafka.segments import Index, Segment
from pipeline.kafka.topics import Extent, Topic, cluster_id, describe, extents
from pipeline.repository import BackupSet, Manifest, Repository
from pipeline.store import Store, StoredObject

KIND = "topics"
MADE_BY = "recovery-drills 0.1"
SEGMENT = 64 << 20
"""Bytes of batches after which a segment ends, give or take one fetch."""
FETCH = 8 << 20
PARALLEL = 4
NOT_ARCHIVED = ("ACLs", "quotas", "SCRAM users", "consumer-group offsets")


def take(
    config: PipelineConfig,
    repository: Repository,
    topics: Sequence[str] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> BackupSet:
    """Archive these topics, or all but the brokers' own, and commit them as one backup set.

    Every partition ends where it was decided when the run began: at its last stable offset. Memory
    holds a few fetches for each of PARALLEL partitions, whatever the topics' size.

    Raises ServerError where the brokers fail, BackupError where they hold damaged batches: no set
    is committed then.
    """
    started = datetime.now(UTC)
    label = repository.new_label(KIND, started)
    prefix = f"sets/{KIND}/{label}/"
    found = describe(config.kafka, topics)
    ends = extents(config.kafka, [place for topic in found for place in topic.places])
    with RawReader(config.kafka, FETCH) as reader:
        archivers = [
            _Partition(config, reader, (repository.store, prefix), topic, (place, ends[place]))
            for topic in found
            for place in topic.places
        ]
        indexes = _run(archivers, lambda line: progress(f"{label}: {line}"))
    manifest = Manifest(
        kind=KIND,
        label=label,
        started=started,
        finished=datetime.now(UTC),
        made_by=MADE_BY,
        facts=_facts(cluster_id(config.kafka), found, indexes),
        objects=tuple(stored for archiver in archivers for stored in archiver.objects),
    )
    return repository.commit(manifest)


class _Partition:
    """One partition on its way into the store."""

    def __init__(
        self,
        config: PipelineConfig,
        reader: RawReader,
        into: tuple[Store, str],
        topic: Topic,
        of: tuple[Place, Extent],
    ) -> None:
        self.objects: list[StoredObject] = []
        self._config, self._reader = config, reader
        self._store, prefix = into
        self._place, self._to = of
        self._first = self._to.start
        self._folder = segments.folder(prefix, self._place)
        self._account = Account(self._place, self._to.start, compacted=topic.compacted)
        self._segments: list[Segment] = []
        self._head = segments.anchor(self._place, self._to.start)

    def run(self, stopped: threading.Event) -> Index:
        """Store all segments, then the index, which says how they belong together."""
        while True:
            gone: list[OffsetGone] = []
            blocks = self._blocks(stopped, gone)
            for block in blocks:
                self._store_segment(block, blocks)
            if not gone:
                break
            self._skip_deleted(gone[0])
        if stopped.is_set():
            raise BackupError(f"{self._place}: stopped at {self._account.position}")
        index = Index(
            topic=self._place.topic,
            topic_id=str(self._place.topic_id),
            partition=self._place.partition,
            start=self._to.start,
            end=self._to.end,
            high_watermark=self._to.high_watermark,
            content=self._account.close(self._to.end),
            segments=tuple(self._segments),
        )
        content = index.model_dump_json(indent=1).encode()
        self.objects.append(self._store.put(self._folder + segments.INDEX, [content]))
        return index

    def _blocks(self, stopped: threading.Event, gone: list[OffsetGone]) -> Iterator[bytes]:
        """Whole batches, fetch by fetch; ends early where the log has lost what comes next."""
        try:
            for fetched in self._reader.batches(self._place, self._account.position, self._to.end):
                self._account.take(fetched.data, fetched.aborted)
                yield fetched.data
                if stopped.is_set():
                    return
        except OffsetGone as error:
            gone.append(error)  # raised, it would throw away the segment that is being stored

    def _skip_deleted(self, gone: OffsetGone) -> None:
        """Go on at the new log start; the next segment begins there, so that it can be proven."""
        start = extents(self._config.kafka, [self._place])[self._place].start
        if start <= self._account.position:
            raise gone  # the log was cut at its other end
        self._account.deleted_until(min(start, self._to.end))
        self._first = self._account.position

    def _store_segment(self, block: bytes, blocks: Iterator[bytes]) -> None:
        """Store this block and those that follow, until the segment is full."""
        first = self._first
        packed = segments.worth_packing(block, str(self._place))
        key = segments.segment_key(self._folder, first, packed=packed)
        content = segments.bounded(block, blocks, SEGMENT)
        stored = self._store.put(key, segments.packed(content) if packed else content)
        self.objects.append(stored)
        end = self._first = min(self._account.position, self._to.end)
        self._head = segments.link(self._head, stored.sha256, first, end)
        self._segments.append(
            Segment(key=key, first=first, end=end, sha256=stored.sha256, link=self._head)
        )


def _run(archivers: Sequence[_Partition], progress: Callable[[str], None]) -> list[Index]:
    stopped = threading.Event()
    with ThreadPoolExecutor(PARALLEL, "archive") as pool:
        running = [pool.submit(archiver.run, stopped) for archiver in archivers]
        try:
            for done in as_completed(running):
                progress(_told(done.result()))
        finally:
            stopped.set()  # one that failed stops the others: no set comes of them
    return [done.result() for done in running]


def _told(index: Index) -> str:
    gaps = totals(index.content.gaps)
    lost = f", {gaps[Reason.LOST]:,} offsets LOST" if Reason.LOST in gaps else ""
    open_ = index.high_watermark - index.end
    undecided = f", {open_:,} offsets behind an open transaction left out" if open_ else ""
    return f"{index} to {index.end}: {index.content.bytes:,} bytes of batches{lost}{undecided}"


def _facts(cluster: str, topics: Sequence[Topic], indexes: Sequence[Index]) -> dict[str, Any]:
    return {
        "cluster_id": cluster,
        "not_archived": list(NOT_ARCHIVED),
        "topics": {
            topic.name: {
                "topic_id": str(topic.topic_id),
                "replication": topic.replication,
                "overrides": topic.overrides,
                "defaults": topic.defaults,
                "partitions": {
                    str(index.partition): {
                        "start": index.start,
                        "end": index.end,
                        "high_watermark": index.high_watermark,
                        "records": index.content.records,
                        "gaps": {str(why): n for why, n in totals(index.content.gaps).items()},
                        "head": index.head,
                    }
                    for index in indexes
                    if index.topic == topic.name
                },
            }
            for topic in topics
        },
    }
