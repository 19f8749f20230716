"""Segments of an archived partition: bounded, hashed, and chained to the place they belong to."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import IO, cast

import zstandard
from pydantic import BaseModel, ConfigDict

from pipeline.kafka.account import Content
from pipeline.kafka.batches import Codec, walk
from pipeline.kafka.raw import Place

INDEX = "index.json"
_PACKED = ".zst"


class Segment(BaseModel):
    """One object: `sha256` is that of the object, `link` binds it to all that lie before it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    first: int
    end: int
    sha256: str
    link: str


class Index(BaseModel):
    """What an archive holds of one partition: offsets from `start` to `end`, and where."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: str
    topic_id: str
    partition: int
    start: int
    end: int
    high_watermark: int
    content: Content
    segments: tuple[Segment, ...]

    @property
    def place(self) -> Place:
        return Place(self.topic, self.topic_id, self.partition)

    @property
    def head(self) -> str:
        """What all segments together add up to; the manifest holds it too."""
        return self.segments[-1].link if self.segments else anchor(self.place, self.start)

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


def folder(prefix: str, place: Place) -> str:
    """Key prefix of a partition's objects."""
    return f"{prefix}{place.topic}/{place.partition}/"


def segment_key(folder: str, first: int, *, packed: bool) -> str:
    """Key of a segment; how it is stored shows in its name."""
    return f"{folder}{first:020d}.batches{_PACKED if packed else ''}"


def anchor(place: Place, first: int) -> str:
    """Where a chain begins: segments of another place, or another life of it, do not fit."""
    return _sha256("topic archive 1", place.topic, place.topic_id, place.partition, first)


def link(before: str, sha256: str, first: int, end: int) -> str:
    """Bind a segment to its offsets and to everything before it."""
    return _sha256(before, sha256, first, end)


def worth_packing(block: bytes, where: str) -> bool:
    """Whether the producer left the first records of this block uncompressed."""
    data = (batch for batch, _ in walk(block, where) if not batch.control)
    first = next(data, None)
    return first is not None and first.codec is Codec.NONE


def bounded(block: bytes, more: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Yield this block, then as many as fit."""
    while True:
        yield block
        size -= len(block)
        following = next(more, None) if size > 0 else None
        if following is None:
            return
        block = following


def packed(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Compress what the producer did not."""
    packer = zstandard.ZstdCompressor(level=1, write_checksum=True).compressobj()
    for block in blocks:
        if ready := packer.compress(block):
            yield ready
    yield packer.flush()


def unpacked(stream: IO[bytes], key: str) -> IO[bytes]:
    """Read the batches of a segment, however it was stored."""
    if not key.endswith(_PACKED):
        return stream
    reader = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
    return cast("IO[bytes]", reader)


def _sha256(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()
