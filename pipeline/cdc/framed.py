"""Schema ids that records carry: how they are framed, and which ones an archive holds.

Format: a zero, and the id in four bytes
(https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/). Apicurio
writes eight where it is not told otherwise; the first four are zeros then, and no id is 0. What
is not looked at: ids in headers, as GUIDs.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.kafka.archive.reading import Archived, archived
from pipeline.kafka.archive.segments import Segment
from pipeline.kafka.log.batches import walk
from pipeline.kafka.log.records import key_and_value, unpacked
from pipeline.registry.schemas import Inventory
from pipeline.repository.sets import BackupSet

KEY, VALUE = "key", "value"
PARTS = (KEY, VALUE)
PREFIX, LONG_PREFIX = 5, 9
LONG = 8
"""Bytes of a number as Kafka's own serializer writes it: small ones begin with a zero as well."""


def number_of(raw: bytes) -> int | None:
    """Tell the id of the schema that a key or value is framed with; None where it is not."""
    if raw[:1] != b"\0" or len(raw) < PREFIX:
        return None
    number = int.from_bytes(raw[1:PREFIX], "big")
    return number or (int.from_bytes(raw[1:LONG_PREFIX], "big") if len(raw) > LONG_PREFIX else 0)


def reframed(raw: bytes, number: int) -> bytes:
    """Write the id in four bytes, however it is written there."""
    short = int.from_bytes(raw[1:PREFIX], "big") == number
    return raw if short else b"\0" + number.to_bytes(4, "big") + raw[LONG_PREFIX:]


@dataclass
class Seen:
    """What keys, or values, of a topic look like: how many, how many framed, under which ids.

    `ids` tells how often each is there, and at which offset first.
    """

    all: int = 0
    framed: int = 0
    longs: int = 0
    ids: dict[int, tuple[int, str]] = field(default_factory=dict)

    def add(self, raw: bytes | None, place: str) -> None:
        """Take in one."""
        if raw is None:
            return
        self.all += 1
        if (number := number_of(raw)) is None:
            return
        self.framed += 1
        self.longs += len(raw) == LONG
        count, first = self.ids.get(number, (0, place))
        self.ids[number] = count + 1, first

    def merge(self, other: "Seen") -> None:
        """Take in what another place of the same topic holds."""
        self.all, self.framed = self.all + other.all, self.framed + other.framed
        self.longs += other.longs
        for number, (count, first) in other.ids.items():
            known, place = self.ids.get(number, (0, first))
            self.ids[number] = known + count, place

    def carries_ids(self, *, subject: bool = False) -> bool:
        """Whether these are framed: they have a subject, or all begin so and are no numbers."""
        looks_so = self.framed == self.all and self.longs < self.all
        return self.framed > 0 and (subject or looks_so)


Topics = dict[str, dict[str, Seen]]
"""By topic, then by part of a record."""


def of_archive(backup: BackupSet, before: Mapping[str, Any]) -> tuple[Topics, dict[str, Any]]:
    """Read which ids an archive's records carry; segments that `before` tells are not read again.

    The second answer is what to give as `before` the next time.
    """
    found: Topics = defaultdict(lambda: {part: Seen() for part in PARTS})
    noted: dict[str, Any] = {}
    for partition in archived(backup):
        for segment in partition.index.segments:
            told = before.get(segment.sha256) or _as_json(_of_segment(partition, segment))
            noted[segment.sha256] = told
            for part, seen in _of_json(told).items():
                found[partition.index.topic][part].merge(seen)
    return dict(found), noted


def _of_segment(partition: Archived, segment: Segment) -> dict[str, Seen]:
    seen, where = {part: Seen() for part in PARTS}, str(partition.index)
    for piece in partition.pieces(segment.first, segment.end):
        for block in piece.blocks:
            for batch, view in walk(block, where):
                if batch.control:
                    continue
                for record in unpacked(batch, view, where):
                    place = f"{where}@{record.offset}"
                    for part, raw in zip(PARTS, key_and_value(record.body), strict=True):
                        seen[part].add(raw, place)
    return seen


def _as_json(parts: Mapping[str, Seen]) -> dict[str, Any]:
    return {
        part: [seen.all, seen.framed, seen.longs, {str(n): at for n, at in seen.ids.items()}]
        for part, seen in parts.items()
    }


def _of_json(told: Mapping[str, Any]) -> dict[str, Seen]:
    return {
        part: Seen(of[0], of[1], of[2], {int(n): (c, at) for n, (c, at) in of[3].items()})
        for part, of in told.items()
    }


def carried(topics: Topics, inventory: Inventory) -> Iterator[tuple[str, str, Seen]]:
    """Yield the parts of records that carry ids, as far as that can be told."""
    for topic, parts in sorted(topics.items()):
        for part, seen in parts.items():
            subject = f"{topic}-{part}" in inventory.subjects
            if seen.carries_ids(subject=subject):
                yield topic, part, seen


def unresolved(topics: Topics, inventory: Inventory) -> dict[str, str]:
    """Say which ids of archived records no schema of the registry explains, and where they are."""
    return {
        f"{topic} {part} {number}": f"{count} times, first at {first}"
        for topic, part, seen in carried(topics, inventory)
        for number, (count, first) in sorted(seen.ids.items())
        if number not in inventory.by_id
    }
