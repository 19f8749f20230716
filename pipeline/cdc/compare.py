"""The keys that are alive in a topic against the rows of its table; nothing is changed here."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.cdc.forms import NotComparable
from pipeline.cdc.keys import Key, Layout, plain
from pipeline.cdc.topics import Ends, LiveKeys, Stranger
from pipeline.cdc.wire import Undecodable

Read = Callable[[bytes], tuple[Layout, Key]]
Rows = Callable[[Sequence[Layout]], Iterator[list[list[Key]]]]
"""Every row's keys in each of these layouts; without any, in one that people can read."""
Place = tuple[int, bytes]
EXAMPLES = 20


@dataclass(frozen=True)
class Compared:
    """What was found. `ghosts` are the places of keys that no row has."""

    rows: int
    recognised: int
    """Rows whose key is alive in the topic, whatever its event's age."""
    ghosts: list[Place]
    ghost_keys: int
    missing: list[Key]
    strangers: tuple[Stranger, ...]
    unlike: tuple[str, ...]
    """Why keys that are the table's own cannot be compared with its rows."""
    lossy: tuple[str, ...]
    """What the keys do not tell of their rows."""
    examples: tuple[str, str]

    @property
    def trouble(self) -> str | None:
        """Say why nothing may be buried here, or None."""
        if self.unlike:
            return "keys that cannot be compared: " + "; ".join(self.unlike)
        if 2 * self.recognised < self.rows and (self.ghosts or self.strangers):
            topic, table = self.examples
            return (
                f"{self.recognised} of {self.rows} rows are recognised in it, expected at least "
                f"half: topic key {topic} against table key {table}"
                + (f"; {self.strangers[0]}" if self.strangers else "")
            )
        if self.ghosts and self.lossy:
            return (
                f"{self.ghost_keys} keys have no row, for example {self.examples[0]}, but keys do "
                f"not tell {'; '.join(self.lossy)}"
            )
        return None


def compare(read: Read, rows: Rows, folded: LiveKeys, since: Ends) -> Compared:
    """Compare a folded topic with its table: a row is missing unless an event since then names it.

    Rows are read once, with a key for each layout that the topic's keys have.
    """
    events = _Events(folded.topic, read, since)
    for partition, raw, offset in folded:
        events.add(partition, raw, offset)
    count, recognised, missing, example = 0, 0, [], ""
    for count, keys in enumerate(rows(events.layouts), 1):  # noqa: B007 - the count
        example = example or _told(keys[0][0])
        known, fresh = events.meet(keys)
        recognised += known
        if not fresh:
            missing.append(keys[0][0])
    ghosts = list(events.unmet())
    topic = plain(ghosts[0][0][1]) if ghosts else events.unread
    return Compared(
        rows=count,
        recognised=recognised,
        ghosts=[place for places in ghosts for place in places],
        ghost_keys=len(ghosts),
        missing=missing,
        strangers=(*folded.strangers, *events.strangers),
        unlike=tuple(events.unlike),
        lossy=tuple(loss for layout in events.layouts if (loss := layout.loses)),
        examples=(topic, example),
    )


class _Events:
    """Living keys by layout. A key that a row was met for holds no places any more."""

    def __init__(self, topic: str, read: Read, since: Ends) -> None:
        self._topic, self._read, self._since = topic, read, since
        self.layouts: list[Layout] = []
        self._living: list[dict[Key, list[Place] | None]] = []
        self._fresh: list[set[Key]] = []
        self.strangers: list[Stranger] = []
        self.unlike: dict[str, None] = {}
        self.unread = ""

    def add(self, partition: int, raw: bytes, offset: int) -> None:
        try:
            layout, key = self._read(raw)
        except NotComparable as error:
            self.unlike[str(error)] = None
            return
        except Undecodable as error:
            self.unread = self.unread or plain(raw)
            why = f"its key {plain(raw)} is none of the table's: {error}"
            self.strangers.append(Stranger(self._topic, partition, offset, why))
            return
        at = self._at(layout)
        places = self._living[at].setdefault(key, [])
        if places is not None:
            places.append((partition, raw))
        if offset >= self._since.get(partition, 0):
            self._fresh[at].add(key)

    def _at(self, layout: Layout) -> int:
        for at, known in enumerate(self.layouts):  # one in nearly every topic
            if known is layout or known == layout:
                return at
        self.layouts.append(layout)
        self._living.append({})
        self._fresh.append(set())
        return len(self.layouts) - 1

    def meet(self, row: list[list[Key]]) -> tuple[bool, bool]:
        """Take a row for met: whether any event names it, and whether one since then does."""
        known = fresh = False
        for living, new, keys in zip(self._living, self._fresh, row, strict=False):
            for key in keys:
                if key in living:
                    known, living[key] = True, None
                    fresh = fresh or key in new
        return known, fresh

    def unmet(self) -> Iterable[list[Place]]:
        """Yield the places of each key that no row was met for."""
        return (places for living in self._living for places in living.values() if places)


def _told(key: Key) -> str:
    return ", ".join(map(str, key)) or "without columns"


def examples(keys: Iterable[str]) -> tuple[str, ...]:
    """Take the first few."""
    return tuple(key for key, _ in zip(keys, range(EXAMPLES), strict=False))
