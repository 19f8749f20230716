"""Segments of an archived partition: bounded, hashed, chained, and shared by backup sets.

Format 2, below `sets/topics/<label>/topics/<topic>/<partition>/`, before without the second `topics/`:

| object | holds |
|---|---|
| `<first offset>.batches[.zst]` | a segment: whole batches as the broker sent them |
| `<first offset>.inventory.json` | what it holds, every gap named; written after it: without one a segment does not exist |
| `index.json` | the segments of this partition from `start` to `end`, written last |

A set is complete by itself: its index names every segment, and its manifest lists every object. What
did not change since an older set is not stored again: the key then lies in that set's folder. So
there is no chain of sets to follow, and an older set may go as long as the objects stay that a kept
manifest lists. A segment of a run that was never finished is taken over in the same way.
"""  # noqa: E501 - a table

import hashlib
import json
from collections.abc import Container, Iterable, Iterator
from typing import IO, Self, cast

import zstandard
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from pipeline.errors import BackupError
from pipeline.kafka.log.account import Content, Counts
from pipeline.kafka.log.batches import Codec, walk
from pipeline.kafka.log.gaps import Reason
from pipeline.kafka.log.place import Place
from pipeline.repository.store import HashedStream

FORMAT = 2
INDEX = "index.json"
_LONGEST = 200
"""Letters of a topic that its folder is named by; file systems take 255 bytes of a name."""
INVENTORY = ".inventory.json"
_PACKED = ".zst"
_BLOCK = 4 << 20


class Stated(BaseModel):
    """A JSON object of an archive; it says its format, so that a newer one is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    topic: str
    topic_id: str
    partition: int

    @classmethod
    def parse(cls, data: bytes, where: str) -> Self:
        """Read it; BackupError when it was cut, edited or is of another format."""
        try:
            body = json.loads(data)
            stated = body.get("format") if isinstance(body, dict) else None
            if stated != FORMAT:
                raise BackupError(f"{where}: archive format {stated}; this version reads {FORMAT}")
            return cls.model_validate_json(data)
        except (ValueError, ValidationError) as error:
            raise BackupError(f"{where}: {error}") from error

    @property
    def place(self) -> Place:
        return Place(self.topic, self.topic_id, self.partition)

    def encoded(self) -> bytes:
        return self.model_dump_json().encode()

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


class Inventory(Stated):
    """What one segment holds."""

    key: str
    first: int
    end: int
    size: int
    sha256: str
    decided: AwareDatetime
    content: Content


class Segment(Counts):
    """One segment in an index: offsets [first, end), no hole to the next.

    `size` and `sha256` are those of the object, `inventory` is the digest of its inventory, `link`
    binds both to all that lies before. Its run asked at `decided` where the topics end. `gaps`
    counts offsets without a record, by reason.
    """

    key: str
    first: int
    end: int
    size: int
    sha256: str
    inventory: str
    link: str
    decided: AwareDatetime
    gaps: dict[Reason, int]

    @property
    def inventory_key(self) -> str:
        return inventory_key(self.key)


class Index(Stated):
    """What a set holds of one partition: [start, end) without a hole, every gap named.

    The broker's log began at `log_start` when the run was decided. `start` lies at or before it: a
    segment goes as a whole, so an older one may still hold what retention has deleted since. From
    `added` on the offsets were read by this run, before it by earlier ones.
    """

    compacted: bool
    start: int
    log_start: int
    added: int
    end: int
    high_watermark: int
    segments: tuple[Segment, ...]

    @property
    def head(self) -> str:
        """What all segments together add up to; the manifest holds it too."""
        return self.segments[-1].link if self.segments else anchor(self.place, self.start)

    @property
    def batches(self) -> int:
        return sum(segment.batches for segment in self.segments)

    @property
    def records(self) -> int:
        """Records, those of aborted transactions too; markers are none."""
        return sum(segment.records for segment in self.segments)

    @property
    def bytes(self) -> int:
        """Bytes of batches, before a segment was compressed."""
        return sum(segment.bytes for segment in self.segments)

    @property
    def largest(self) -> int:
        """The largest batch in bytes: what a target must accept."""
        return max((segment.largest for segment in self.segments), default=0)

    @property
    def gaps(self) -> dict[Reason, int]:
        """Offsets in [0, end) without a record, by reason."""
        found = {Reason.DELETED: self.start} if self.start else {}
        for segment in self.segments:
            for reason, offsets in segment.gaps.items():
                found[reason] = found.get(reason, 0) + offsets
        return found

    @property
    def leader_epochs(self) -> list[tuple[int, int]]:
        """Each leader's epoch with the offset where it begins."""
        found: list[tuple[int, int]] = []
        for segment in self.segments:
            for epoch, offset in segment.leader_epochs:
                if not found or found[-1][0] != epoch:
                    found.append((epoch, offset))
        return found

    def problems(self) -> Iterator[str]:
        """What does not fit together, without a look at the segments themselves."""
        head, position = anchor(self.place, self.start), self.start
        for segment in self.segments:
            if segment.first != position:
                yield f"{segment.key} begins at {segment.first}, expected {position}"
            head = linked(head, segment.sha256, segment.inventory, segment.first, segment.end)
            if head != segment.link:
                yield f"{segment.key} does not follow what is before it: the hash chain is broken"
            head, position = segment.link, segment.end
        if position != self.end:
            yield f"the segments end at {position}, expected {self.end}"


def chained(place: Place, start: int, pieces: Iterable[Segment]) -> tuple[Segment, ...]:
    """Bind these segments into one chain that begins at `start`, whatever they were part of."""
    head, found = anchor(place, start), []
    for piece in pieces:
        head = linked(head, piece.sha256, piece.inventory, piece.first, piece.end)
        found.append(piece.model_copy(update={"link": head}))
    return tuple(found)


def listed(inventory: Inventory, digest: str) -> Segment:
    """A segment as an index lists it, in no chain yet."""
    return Segment(
        key=inventory.key,
        first=inventory.first,
        end=inventory.end,
        size=inventory.size,
        sha256=inventory.sha256,
        inventory=digest,
        link="",
        decided=inventory.decided,
        gaps=dict(inventory.content.totals),
        **inventory.content.model_dump(include=set(Counts.model_fields)),
    )


def folder(prefix: str, topic: str, partition: int) -> str:
    """Key prefix of a partition's objects: topics have a folder beside the manifest."""
    return f"{prefix}topics/{name_of(topic)}/{partition}/"


def name_of(topic: str) -> str:
    """Name of a topic's folder, in which no two topics meet, also where case does not count."""
    if topic == topic.lower() and len(topic) <= _LONGEST:
        return topic
    return f"{topic[:_LONGEST]}~{hashlib.sha256(topic.encode()).hexdigest()[:16]}"


def index_key(prefix: str, topic: str, partition: int, listed: Container[str]) -> str:
    """Key of a partition's index in a set of these keys; older versions had no `topics/`."""
    before = f"{prefix}{topic}/{partition}/{INDEX}"
    return before if before in listed else folder(prefix, topic, partition) + INDEX


def segment_key(folder: str, first: int, *, packed: bool) -> str:
    """Key of a segment; how it is stored shows in its name."""
    return f"{folder}{first:020d}.batches{_PACKED if packed else ''}"


def inventory_key(key: str) -> str:
    """Key of what a segment's inventory is stored under."""
    return key.removesuffix(_PACKED).removesuffix(".batches") + INVENTORY


def anchor(place: Place, start: int) -> str:
    """Where a chain begins: segments of another place, or another life of it, do not fit."""
    return _sha256("topic archive 2", place.topic, place.topic_id, place.partition, start)


def linked(before: str, sha256: str, inventory: str, first: int, end: int) -> str:
    """Bind a segment to its offsets, its inventory and to everything before it."""
    return _sha256(before, sha256, inventory, first, end)


def worth_packing(block: bytes | memoryview, where: str) -> bool:
    """Whether the producer left the first records of this block uncompressed."""
    data = (batch for batch, _ in walk(block, where) if not batch.control)
    first = next(data, None)
    return first is not None and first.codec is Codec.NONE


def blocks(stored: IO[bytes] | HashedStream, key: str) -> Iterator[bytes]:
    """Whole batches of a segment, a few megabytes at a time, however it was stored.

    Raises BackupError where the last batch is cut, or what was stored cannot be unpacked.
    """
    plain, left = cast("IO[bytes]", stored), b""
    if key.endswith(_PACKED):
        plain = zstandard.ZstdDecompressor().stream_reader(plain, read_across_frames=True)
    try:
        while block := plain.read(_BLOCK):
            data = left + block
            whole = sum(batch.size for batch, _ in walk(data, "batches", cut=True))
            if whole:
                yield data[:whole]
            left = data[whole:]
    except zstandard.ZstdError as error:
        raise BackupError(str(error)) from error
    if left:
        raise BackupError(f"{len(left)} bytes of a cut batch at its end")


def _sha256(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()
