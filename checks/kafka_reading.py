"""What lies in a topic archive, found in one reading of its bytes, whatever its lists say."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from checks.kafka_order import Order
from fixtures import cache
from pipeline.errors import BackupError, ObjectMissing
from pipeline.kafka.archive import segments
from pipeline.kafka.archive.reading import inventory
from pipeline.kafka.archive.segments import Index, Segment
from pipeline.kafka.log.account import Account, Content
from pipeline.kafka.log.batches import Batch, check_crc, walk
from pipeline.repository.sets import BackupSet
from pipeline.repository.store import HashedStream, Store

NOTES = "topics.json"
KNOWN_BITS = 0x7F
"""Attributes that Kafka has given a meaning; it ignores the others, and so nobody sees them."""
AT_MOST = 50
"""Bad batches that are named of one segment."""


class Bad(NamedTuple):
    """A batch that no broker would have stored so."""

    offset: int
    problem: str


class SegmentFound(BaseModel):
    """One segment as it lies there. `content` is what its batches add up to, where they can be."""

    model_config = ConfigDict(frozen=True)

    key: str
    trouble: str | None = None
    content: Content | None = None
    bad: tuple[Bad, ...] = ()
    disordered: tuple[Bad, ...] = ()


class Found(BaseModel):
    """Every object's size and digest, every segment's batches."""

    model_config = ConfigDict(frozen=True)

    objects: dict[str, tuple[int, str]] = {}
    segments: dict[str, tuple[SegmentFound, ...]] = {}
    """By `topic[partition]`, in the order of its index."""


def read(backup: BackupSet, indexes: dict[str, Index]) -> Found:
    """Read every object of the set once."""
    found: dict[str, tuple[int, str]] = {}
    walked = {}
    for where, index in indexes.items():
        order = Order(index.start)
        walked[where] = tuple(
            _segment(backup.store, index, each, found, order) for each in index.segments
        )
    for entry in backup.manifest.objects:
        if entry.key not in found:
            _hash(backup.store, entry.key, found)
    return Found(objects=found, segments=walked)


def read_once(backup: BackupSet, indexes: dict[str, Index], notes: Path) -> Found:
    """Read for all workers of a session: the first one writes down what it found."""

    def read_and_note(folder: Path) -> None:
        (folder / NOTES).write_text(read(backup, indexes).model_dump_json())

    folder = cache.ensure(notes / backup.label, read_and_note)
    return Found.model_validate_json((folder / NOTES).read_bytes())


def _hash(store: Store, key: str, found: dict[str, tuple[int, str]]) -> None:
    try:
        with store.open(key) as stored:
            stream = HashedStream(stored)
            digest = stream.hexdigest()
            found[key] = (stream.size, digest)
    except ObjectMissing:
        pass  # the check names it


def _segment(
    store: Store, index: Index, segment: Segment, found: dict[str, tuple[int, str]], order: Order
) -> SegmentFound:
    noted, trouble = _noted(store, index, segment), None
    bad, disordered = list[Bad](), list[Bad]()
    account = Account(index.place, segment.first, compacted=segment.compacted, noted=noted)
    try:
        with store.open(segment.key) as stored:
            stream = HashedStream(stored)
            try:
                for block in segments.blocks(stream, segment.key):
                    bad += _bad(block, str(index), compacted=segment.compacted)
                    disordered += _disordered(block, segment, order)
                    account.take(block)
            except BackupError as error:
                trouble = str(error)
            digest = stream.hexdigest()
            found[segment.key] = (stream.size, digest)
        content = None if trouble else account.cut(segment.end)
    except ObjectMissing:
        trouble, content = "missing", None
    return SegmentFound(
        key=segment.key,
        trouble=trouble,
        content=content,
        bad=tuple(bad[:AT_MOST]),
        disordered=tuple(disordered[:AT_MOST]),
    )


def _noted(store: Store, index: Index, segment: Segment) -> Content | None:
    """What the archiver noted of a segment; None where that cannot be read, which others name."""
    try:
        return inventory(store, index, segment).content
    except (BackupError, ObjectMissing):
        return None


def _bad(block: bytes, where: str, *, compacted: bool) -> Iterator[Bad]:
    for batch, view in walk(block, where):
        try:
            check_crc(batch, view, where)
        except BackupError as error:
            yield Bad(batch.base_offset, str(error))
        if problem := _odd(batch, compacted=compacted):
            yield Bad(batch.base_offset, problem)


def _disordered(block: bytes, segment: Segment, order: Order) -> Iterator[Bad]:
    for batch, _ in walk(block, segment.key):
        for problem in order.problems(batch, compacted=segment.compacted):
            yield Bad(batch.base_offset, problem)


def _odd(batch: Batch, *, compacted: bool) -> str | None:
    if unknown := batch.attributes & 0xFFFF & ~KNOWN_BITS:
        return f"attribute bits {unknown:#x} have no meaning that this version knows"
    if batch.delete_horizon and not compacted:
        return (
            "it has a delete horizon (KIP-534), and only the cleaner of a compacted topic sets it"
        )
    return None
