"""One partition on its way into the store: what is there already, then what is new."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from pipeline.errors import BackupError, StoreError
from pipeline.kafka.archive import reading, segments, stored
from pipeline.kafka.archive.lineage import diverged
from pipeline.kafka.archive.segments import Index, Inventory, Segment
from pipeline.kafka.archive.stored import Pool
from pipeline.kafka.cluster.raw import OffsetGone, RawReader
from pipeline.kafka.cluster.topics import Extent, Topic
from pipeline.kafka.log.account import Account
from pipeline.kafka.log.place import Place
from pipeline.repository import zstd
from pipeline.repository.store import Store, StoredObject

Block = bytes | memoryview

SEGMENT = 64 << 20
"""Bytes of batches after which a segment ends, give or take one fetch."""
GAPS = 20_000
"""Gaps after which it ends as well: an inventory names each, and must fit into memory."""


@dataclass(frozen=True)
class Run:
    """What all partitions of one run share."""

    store: Store
    prefix: str
    reader: RawReader
    log_start: Callable[[Place], int]
    decided: datetime
    stopped: threading.Event
    progress: Callable[[str], None]


class Partition:
    """Stores new segments with their inventories, then the index over all of them."""

    def __init__(
        self,
        run: Run,
        of: tuple[Topic, Place],
        extent: Extent,
        pool: Pool,
        limit: int | None = None,
    ) -> None:
        self.objects: list[StoredObject] = []
        self._topic, self.place = of
        self._run, self._to, self._pool, self._limit = run, extent, pool, limit
        self._folder = segments.folder(run.prefix, self.place.topic, self.place.partition)
        self._segments: list[Segment] = []
        self._start = self._added = self._first = extent.start
        self._taken = 0

    def archive(self) -> Index:
        """Bring this partition up to its end. Raises BackupError, ServerError or StoreError."""
        self._take_over()
        if self._segments:
            self._start, self._added = self._segments[0].first, self._segments[-1].end
        self._account = Account(self.place, self._added, compacted=self._topic.compacted)
        self._first = self._added
        self._read_new()
        if self._run.stopped.is_set():
            raise BackupError(f"{self.place}: stopped at {self._account.position}")
        return self._index()

    def archived_so_far(self) -> Index | None:
        """Keep what was stored before something went wrong: an index that ends early, or None."""
        return self._index() if self._segments else None

    def _index(self) -> Index:
        index = Index(
            topic=self.place.topic,
            topic_id=str(self.place.topic_id),
            partition=self.place.partition,
            compacted=self._topic.compacted,
            start=self._start,
            log_start=self._to.start,
            added=self._added,
            end=self._first,
            high_watermark=self._to.high_watermark,
            segments=segments.chained(self.place, self._start, self._segments),
        )
        key = self._folder + segments.INDEX
        self.objects.append(self._run.store.put(key, [index.encoded()]))
        return index

    def _take_over(self) -> None:
        """Use what is stored already, as far as it is still what the broker holds."""
        found = stored.usable(self._pool, self._to, self._proven)
        if why := self._unusable(found):
            self._say(f"archived whole again: {why}")
            return
        for segment in found:
            self._segments.append(segment)
            self.objects += [
                self._pool.objects[segment.key],
                self._pool.objects[segment.inventory_key],
            ]

    def _proven(self, inventory: Inventory) -> bool:
        """Whether a segment of a run that never ended is whole; if not, it is read again."""
        try:
            for _ in reading.proven(self._run.store, inventory, inventory, inventory.content):
                pass
        except (BackupError, StoreError) as error:
            self._say(f"not taken over from an unfinished run: {error}")
            return False
        return True

    def _unusable(self, found: list[Segment]) -> str | None:
        if not found:
            return None
        if self._topic.compacted or any(segment.compacted for segment in found):
            within = timedelta(milliseconds=self._topic.tombstones_ms)
            if not stored.in_time(found, self._run.decided, within):
                return f"compacted, and tombstones may have gone: they are kept {within}"
        return diverged(self._run.reader, self.place, _ends(found))

    def _read_new(self) -> None:
        while True:
            gone: list[OffsetGone] = []
            blocks = self._blocks(gone)
            for block in blocks:
                self._store_segment(block, blocks)
            if self._full or self._run.stopped.is_set():
                return
            if not gone:
                break
            self._skip_deleted(gone[0])
        if self._first < self._to.end:  # nothing is left there: a segment without batches says so
            self._close(self._put(iter(()), packed=False), self._to.end)

    @property
    def _full(self) -> bool:
        return self._limit is not None and self._taken >= self._limit

    def _blocks(self, gone: list[OffsetGone]) -> Iterator[Block]:
        """Whole batches, fetch by fetch; ends early where the log has lost what comes next."""
        try:
            for fetched in self._run.reader.batches(
                self.place, self._account.position, self._to.end
            ):
                self._taken += self._account.take(fetched.data, fetched.aborted)
                yield fetched.data
                if self._run.stopped.is_set() or self._full:
                    return
        except OffsetGone as error:
            gone.append(error)  # raised, it would throw away the segment that is being stored

    def _skip_deleted(self, gone: OffsetGone) -> None:
        """Go on at the new log start, in a segment that begins with what was deleted."""
        start = self._run.log_start(self.place)
        if start <= self._account.position:
            raise gone  # the log was cut at its other end
        self._account.deleted_until(min(start, self._to.end))

    def _store_segment(self, block: Block, blocks: Iterator[Block]) -> None:
        """Store this block and those that follow, until the segment is full."""
        packed = segments.worth_packing(block, str(self.place))
        self._close(self._put(self._until_full(block, blocks), packed=packed))

    def _until_full(self, block: Block, blocks: Iterator[Block]) -> Iterator[Block]:
        room = SEGMENT
        while True:
            yield block
            room -= len(block)
            following = next(blocks, None) if room > 0 and self._account.gaps < GAPS else None
            if following is None:
                return
            block = following

    def _put(self, blocks: Iterator[Block], *, packed: bool) -> StoredObject:
        key = segments.segment_key(self._folder, self._first, packed=packed)
        chunks = zstd.packed(blocks) if packed else cast("Iterator[bytes]", blocks)
        return self._run.store.put(key, chunks)

    def _close(self, put: StoredObject, end: int | None = None) -> None:
        """Say what the segment holds: only now it exists for a run that goes on from here."""
        reached = min(self._account.position, self._to.end) if end is None else end
        content = self._account.cut(reached)
        inventory = Inventory(
            topic=self.place.topic,
            topic_id=str(self.place.topic_id),
            partition=self.place.partition,
            key=put.key,
            first=self._first,
            end=reached,
            size=put.size,
            sha256=put.sha256,
            decided=self._run.decided,
            content=content,
        )
        key = segments.inventory_key(put.key)
        noted = self._run.store.put(key, [inventory.encoded()])
        self.objects += [put, noted]
        self._segments.append(segments.listed(inventory, noted.sha256))
        self._first = reached

    def _say(self, line: str) -> None:
        self._run.progress(f"{self.place}: {line}")


def _ends(found: list[Segment]) -> list[tuple[int, int]]:
    """Each leader epoch of these segments with the offset where they leave it."""
    begun = [each for segment in found for each in segment.leader_epochs]
    ends: list[tuple[int, int]] = []
    for (epoch, _), following in zip(begun, [*begun[1:], None], strict=True):
        end = found[-1].end if following is None else following[1]
        if ends and ends[-1][0] == epoch:
            ends[-1] = (epoch, end)
        else:
            ends.append((epoch, end))
    return ends
