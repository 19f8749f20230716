"""Where each archived offset of a topic stands after its replay."""

import json
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pipeline.errors import BackupError
from pipeline.kafka.log.place import Spot
from pipeline.repository.store import Store, read

FORMAT = 1
OBJECT = "offset-map.json"


@dataclass
class Moved:
    """One partition: runs of archived offsets, and where they begin now; 24 bytes for each run."""

    first: int
    end: int
    start: int
    sources: "array[int]" = field(default_factory=lambda: array("q"))
    targets: "array[int]" = field(default_factory=lambda: array("q"))
    counts: "array[int]" = field(default_factory=lambda: array("q"))

    @property
    def target_end(self) -> int:
        """Where the target goes on behind the last record that was brought back."""
        return self.targets[-1] + self.counts[-1] if self.counts else self.start

    def add(self, source: int, target: int, count: int) -> None:
        """Note a run; it joins the one before where both go on."""
        if self.counts:
            source_end = self.sources[-1] + self.counts[-1]
            if (source_end, self.target_end) == (source, target):
                self.counts[-1] += count
                return
        self.sources.append(source)
        self.targets.append(target)
        self.counts.append(count)

    def to(self, offset: int) -> int:
        """Where a consumer goes on that stood at `offset`: at that record, or the next one."""
        at = bisect_right(self.sources, offset) - 1
        if at >= 0 and offset < self.sources[at] + self.counts[at]:
            return self.targets[at] + offset - self.sources[at]
        return self.targets[at + 1] if at + 1 < len(self.targets) else self.target_end


@dataclass(frozen=True)
class OffsetMap:
    """A replayed topic; its name then and now. It is what `restore offsets` follows."""

    topic: str
    target: str
    archive: str
    partitions: Mapping[int, Moved]

    def spot(self, spot: Spot) -> Spot:
        """Return where that record, or the next that was brought back, stands now."""
        return Spot(self.target, spot.partition, self.partitions[spot.partition].to(spot.offset))

    def end(self, place: tuple[str, int]) -> int | None:
        """Return the archived offset up to which records were brought back; None: unknown."""
        topic, partition = place
        found = self.partitions.get(partition) if topic == self.topic else None
        return found.end if found else None

    def encoded(self) -> Iterator[bytes]:
        """JSON, piece by piece."""
        head = {
            "format": FORMAT,
            "topic": self.topic,
            "target": self.target,
            "archive": self.archive,
        }
        yield json.dumps(head)[:-1].encode() + b', "partitions": {'
        for number, (partition, moved) in enumerate(sorted(self.partitions.items())):
            within = {"first": moved.first, "end": moved.end, "start": moved.start}
            yield f'{"," if number else ""}\n"{partition}": '.encode()
            yield json.dumps(within)[:-1].encode() + b', "runs": ['
            runs = zip(moved.sources, moved.targets, moved.counts, strict=True)
            for each, run in enumerate(runs):
                yield (b"," if each else b"") + json.dumps(run, separators=(",", ":")).encode()
            yield b"]}"
        yield b"}}\n"

    @classmethod
    def load(cls, store: Store, key: str) -> "OffsetMap":
        """Read one that a replay wrote. Raises BackupError when it is not one."""
        try:
            told = json.loads(read(store, key))
            if told["format"] != FORMAT:
                raise BackupError(f"{key}: format {told['format']}; this version reads {FORMAT}")
            partitions = {int(p): _moved(each) for p, each in told["partitions"].items()}
            return cls(told["topic"], told["target"], told["archive"], partitions)
        except (ValueError, KeyError, TypeError) as error:
            raise BackupError(f"{key}: not an offset map ({error!r})") from error


def _moved(told: dict[str, object]) -> Moved:
    moved = Moved(int(str(told["first"])), int(str(told["end"])), int(str(told["start"])))
    runs = told["runs"]
    if not isinstance(runs, list):
        raise TypeError("runs")
    for source, target, count in runs:
        moved.add(source, target, count)
    return moved
