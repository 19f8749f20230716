"""Reading an archive: every partition with all its segments, proven while they are read.

Which older set's folder a segment lies in, and how it is stored, stays in here::

    for partition in archived(backup):
        for piece in partition.pieces():
            for block in piece.blocks:        # whole batches, in order
                ...
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.errors import BackupError
from pipeline.kafka.archive import segments
from pipeline.kafka.archive.segments import Index, Inventory, Segment, Stated
from pipeline.kafka.log.account import Account, Content
from pipeline.kafka.log.gaps import Gap, Reason
from pipeline.repository.sets import BackupSet
from pipeline.repository.store import HashedStream, Store, read


class Piece(NamedTuple):
    """A segment, what it holds, and its batches.

    `blocks` are whole batches. Each has passed its CRC and follows the one before it; what only
    shows at the segment's end (hash, counts, gaps) raises BackupError after the last of them.
    """

    segment: Segment
    content: Content
    blocks: Iterator[bytes]


@dataclass(frozen=True)
class Archived:
    """One partition of a backup set."""

    index: Index
    store: Store

    def inventories(self) -> Iterator[tuple[Segment, Inventory]]:
        """Each segment with what it holds; BackupError where that is not what the index says."""
        for segment in self.index.segments:
            yield segment, inventory(self.store, self.index, segment)

    def gaps(self) -> Iterator[Gap]:
        """Every gap of [0, end), in order; neighbours of one reason may meet at a segment's end."""
        if self.index.start:
            yield Gap(0, self.index.start, Reason.DELETED, self.index.start)
        for _, found in self.inventories():
            yield from found.content.gaps

    def pieces(self, first: int = 0, end: int | None = None) -> Iterator[Piece]:
        """Segments that hold any offset of [first, end), whole; each must be read to its end."""
        for segment, found in self.inventories():
            if segment.end > first and (end is None or segment.first < end):
                blocks = proven(self.store, self.index, segment, found.content)
                yield Piece(segment, found.content, blocks)


def archived(backup: BackupSet, topics: Sequence[str] = ()) -> Iterator[Archived]:
    """Yield every partition of these topics, or of all; the index is proven, segments not yet.

    Raises BackupError when an index is damaged or the set does not hold one of the topics, and
    ObjectMissing when the index is gone.
    """
    told, listed = backup.manifest.facts.get("topics", {}), digests(backup)
    if strangers := sorted(set(topics) - set(told)):
        raise BackupError(f"{backup.label} does not hold {', '.join(strangers)}")
    for topic in topics or told:
        for partition in told[topic]["partitions"]:
            index = read_index(backup, topic, int(partition), listed)
            if problem := next(index.problems(), None):
                raise BackupError(f"{index}: {problem}")
            yield Archived(index, backup.store)


def digests(backup: BackupSet) -> dict[str, str]:
    """What the manifest says of every object, by key."""
    return {entry.key: entry.sha256 for entry in backup.manifest.objects}


def read_index(backup: BackupSet, topic: str, partition: int, listed: Mapping[str, str]) -> Index:
    """The index of a partition; BackupError unless it is the one that the manifest means."""
    key = segments.index_key(backup.prefix, topic, partition, listed)
    told = backup.manifest.facts["topics"][topic]
    content, expected = read(backup.store, key), listed.get(key)
    if (found := hashlib.sha256(content).hexdigest()) != expected:
        raise BackupError(f"{key}: sha256 is {found}, the manifest says {expected}")
    index = Index.parse(content, key)
    facts = told["partitions"][str(partition)]
    meant = (topic, told["topic_id"], partition, facts["start"], facts["end"], facts["head"])
    stated = (index.topic, index.topic_id, index.partition, index.start, index.end, index.head)
    if stated != meant:
        raise BackupError(f"{key}: it is of {stated}, the manifest means {meant}")
    return index


def inventory(store: Store, index: Index, segment: Segment) -> Inventory:
    """What a segment holds; BackupError unless index and inventory mean the same."""
    content = read(store, segment.inventory_key)
    if (found := hashlib.sha256(content).hexdigest()) != segment.inventory:
        raise BackupError(
            f"{segment.inventory_key}: sha256 is {found}, the index says {segment.inventory}"
        )
    stated = Inventory.parse(content, segment.inventory_key)
    if (str(stated), stated.topic_id) != (str(index), index.topic_id):
        raise BackupError(
            f"{segment.inventory_key} belongs to {stated} of topic id {stated.topic_id}, "
            f"expected {index} of {index.topic_id}"
        )
    return stated


def proven(
    store: Store, whose: Stated, segment: Segment | Inventory, content: Content
) -> Iterator[bytes]:
    """Whole batches of a segment; BackupError as soon as it is not what `content` says."""
    account = Account(whose.place, segment.first, compacted=content.compacted, noted=content)
    with store.open(segment.key) as stored:
        hashed = HashedStream(stored)
        try:
            for block in segments.blocks(hashed, segment.key):
                account.take(block)
                yield block
        except BackupError as error:
            raise BackupError(f"{segment.key}: {error}") from error
        if (found := hashed.hexdigest()) != segment.sha256:
            raise BackupError(f"{segment.key}: sha256 is {found}, expected {segment.sha256}")
    counted = account.cut(segment.end)
    if counted != content:
        changed = [name for name, value in counted if value != getattr(content, name)]
        raise BackupError(f"{segment.key}: its batches differ in {', '.join(changed)}")
