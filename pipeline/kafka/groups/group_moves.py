"""Where a committed offset goes, and what proves it: the records around it, then and now."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pipeline.kafka.groups.groups import Position
from pipeline.kafka.groups.surroundings import Seen, Surroundings
from pipeline.kafka.log.place import Spot
from pipeline.repository.sets import BackupSet


class Moves(Protocol):
    """Where the records of a backed up topic stand now."""

    def spot(self, spot: Spot) -> Spot:
        """Return where that record, or the next that was brought back, stands now.

        Raises KeyError for a partition that was not brought back.
        """

    def end(self, place: tuple[str, int]) -> int | None:
        """Return the offset, as it was, up to which records were brought back; None: unknown."""


@dataclass(frozen=True)
class Exact:
    """Every record stands at its old offset, up to these ends of the archive that was replayed."""

    ends: Mapping[tuple[str, int], int]

    def spot(self, spot: Spot) -> Spot:
        return spot

    def end(self, place: tuple[str, int]) -> int | None:
        return self.ends.get(place)

    @classmethod
    def of(cls, archive: BackupSet | None) -> "Exact":
        """Read the ends from a topic archive's manifest."""
        topics = archive.manifest.facts["topics"] if archive else {}
        return cls(
            {
                (name, int(partition)): facts["end"]
                for name, topic in topics.items()
                for partition, facts in topic["partitions"].items()
            }
        )


class Fate(StrEnum):
    """What a restored offset is worth."""

    PROVEN = "the next record is the one it would have read"
    END = "everything was read, and still is"
    COMPACTED = "the next record was compacted away since; it reads the one after"
    RETURNED = "what it stands at was gone when it was noted, and is there again"
    UNSEEN = "nobody could look what it stands at when it was noted"
    CLAMPED = "moved to the end of what was brought back"
    STARTED = "moved to the log's start: what lies before is not there"


@dataclass(frozen=True)
class Decided:
    """One offset on its way back."""

    position: Position
    to: Spot
    fate: Fate
    leader_epoch: int | None

    @property
    def moved(self) -> int:
        """Offsets by which it was clamped, negative towards the beginning."""
        clamped = self.fate in {Fate.CLAMPED, Fate.STARTED}
        return self.to.offset - self.position.offset if clamped else 0

    def __str__(self) -> str:
        moved = f" ({self.moved:+,} offsets)" if self.moved else ""
        return f"{self.position.spot} -> {self.to}: {self.fate}{moved}"


def judge(
    position: Position, to: Spot | None, now: Surroundings | None, moves: Moves
) -> Decided | str:
    """Decide where the offset goes, or say why it goes nowhere."""
    then = position.around
    if to is None or now is None or then is None or now.unseen is not None:
        why = f": {now.unseen}" if now is not None and now.unseen else " is not there"
        return f"{to or 'its partition'}{why}"
    if to.offset < now.start:
        return Decided(position, to._replace(offset=now.start), Fate.STARTED, None)
    fate = _fate(position, to, now, moves)
    end = moves.end(position.spot[:2])
    if fate is Fate.UNSEEN and now.topic_id != then.topic_id and (end or 0) <= position.offset:
        fate = "nobody could look at it when it was noted, and other records may stand there now"
    if isinstance(fate, Fate) and fate is not Fate.CLAMPED:
        epoch = position.leader_epoch if now.topic_id == then.topic_id else None
        return Decided(position, to, fate, epoch)
    if end is not None and position.offset >= end:  # what stands behind it now is something else
        stop = moves.spot(position.spot._replace(offset=end))
        return Decided(position, stop, Fate.CLAMPED, None)
    if fate is Fate.CLAMPED:
        return Decided(position, to._replace(offset=now.end), Fate.CLAMPED, None)
    return fate


def _fate(position: Position, to: Spot, now: Surroundings, moves: Moves) -> Fate | str:
    then = position.around
    if to.offset > now.end:
        return Fate.CLAMPED
    if then is not None and then.unseen is not None:
        return Fate.UNSEEN
    if then is None or position.offset < then.start:
        return Fate.RETURNED  # nothing could be noted there; a replay has proven what stands there
    return _proof(then, now, lambda at: moves.spot(position.spot._replace(offset=at)).offset)


def _proof(then: Surroundings, now: Surroundings, moved: Callable[[int], int]) -> Fate | str:
    """Compare what stood around an offset with what stands there; a string says how they differ."""
    if then.next is not None:
        if now.next is not None and _same(then.next, now.next, moved):
            return Fate.PROVEN
        if now.compacted and now.next and now.next.offset > moved(then.next.offset):
            return Fate.COMPACTED
        return f"the next record was {_told(then.next)} and is {_told(now.next)}"
    if then.before is None or now.before is None:
        gone = now.compacted and now.before is None
        return Fate.END if then.before is now.before or gone else _before(then, now)
    earlier = now.compacted and now.before.offset < moved(then.before.offset)
    return Fate.END if _same(then.before, now.before, moved) or earlier else _before(then, now)


def _before(then: Surroundings, now: Surroundings) -> str:
    return f"the record before was {_told(then.before)} and is {_told(now.before)}"


def _same(then: Seen, now: Seen, moved: Callable[[int], int]) -> bool:
    return now.same(then) and now.offset == moved(then.offset)


def _told(seen: Seen | None) -> str:
    return str(seen or "none")
