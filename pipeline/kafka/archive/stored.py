"""What older runs have stored already: an archive goes on from there, also from an unfinished one.

Kafka's cleaner removes a tombstone `delete.retention.ms` after it has removed what the tombstone
deleted. An archive that kept the deleted record, and came back after that, would never see the
tombstone: the key would be alive again. So a compacted topic is gone on with only in time.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from pipeline.errors import BackupError, StoreError
from pipeline.kafka.archive import reading, segments
from pipeline.kafka.archive.segments import Inventory, Segment
from pipeline.kafka.cluster.topics import Extent, Topic
from pipeline.kafka.log.place import Place
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import Store, StoredObject, read

Progress = Callable[[str], None]
_INVENTORY = re.compile(
    r"sets/[^/]+/([^/]+)/(?:topics/)?([^/]+)/(\d+)/\d+" + re.escape(segments.INVENTORY)
)


@dataclass
class Pool:
    """Segments of one partition that are stored already, with the objects that hold them."""

    end: int | None = None
    """Where the newest backup set ends that holds this partition."""
    by_first: dict[int, list[Segment]] = field(default_factory=lambda: defaultdict(list))
    objects: dict[str, StoredObject] = field(default_factory=dict)
    unproven: dict[str, Inventory] = field(default_factory=dict)
    """Inventories, by the key of the segment, of runs that were not finished."""

    def add(self, segment: Segment, *objects: StoredObject) -> None:
        self.by_first[segment.first].append(segment)
        self.objects |= {stored.key: stored for stored in objects}


def pools(
    repository: Repository, kind: str, topics: Sequence[Topic], progress: Progress
) -> dict[Place, Pool]:
    """All that can be gone on from, for each partition; an index that is damaged is said."""
    present = set(repository.store.list(f"sets/{kind}/"))
    found = {place: Pool() for topic in topics for place in topic.places}
    for backup, place in _newest(repository, kind, topics, progress):
        try:
            _take_over(found[place], backup, place, present)
        except (BackupError, StoreError) as error:
            progress(
                f"{place}: archived whole again, {backup.label} cannot be gone on from: {error}"
            )
    _add_unfinished(found, repository, kind, present)
    return found


def _newest(
    repository: Repository, kind: str, topics: Sequence[Topic], progress: Progress
) -> Iterator[tuple[BackupSet, Place]]:
    """Each partition with the newest set that holds it, unless the topic was made anew since."""
    wanted = {topic.name: {place.partition: place for place in topic.places} for topic in topics}
    ids = {topic.name: str(topic.topic_id) for topic in topics}
    for label in reversed(repository.labels(kind)):
        if not wanted:
            return
        backup = repository.get(label)
        held = backup.manifest.facts["topics"]
        for name in sorted(wanted.keys() & held.keys()):
            if held[name]["topic_id"] != ids[name]:
                del wanted[name]
                progress(f"{name}: made anew since {label}, archived from its start")
                continue
            for partition in held[name]["partitions"]:
                if (place := wanted[name].pop(int(partition), None)) is not None:
                    yield backup, place
            # what is whole has all partitions: others are new; else an older set may have them
            if not wanted[name] or name not in backup.manifest.facts.get("incomplete", {}):
                del wanted[name]


def _take_over(pool: Pool, backup: BackupSet, place: Place, present: set[str]) -> None:
    objects = {entry.key: entry for entry in backup.manifest.objects}
    index = reading.read_index(
        backup, place.topic, place.partition, {key: each.sha256 for key, each in objects.items()}
    )
    if problem := next(index.problems(), None):
        raise BackupError(problem)
    pool.end = index.end
    for segment in index.segments:
        keys = (segment.key, segment.inventory_key)
        if present.issuperset(keys):
            pool.add(segment, *(objects[key] for key in keys))


def _add_unfinished(
    found: Mapping[Place, Pool], repository: Repository, kind: str, present: set[str]
) -> None:
    """Segments whose run never ended: whole, or they would have no inventory; not yet proven."""
    finished = set(repository.labels(kind))
    places = {(place.topic, place.partition): place for place in found}
    places |= {(segments.name_of(topic), n): place for (topic, n), place in [*places.items()]}
    for key in sorted(present):
        match = _INVENTORY.fullmatch(key)
        if match is None or match[1] in finished:
            continue
        place = places.get((match[2], int(match[3])))
        if place is not None:
            _add(found[place], repository.store, key, place)


def _add(pool: Pool, store: Store, key: str, place: Place) -> None:
    content = read(store, key)
    try:
        inventory = Inventory.parse(content, key)
    except BackupError:
        return  # another version's run
    if inventory.topic_id != str(place.topic_id) or segments.inventory_key(inventory.key) != key:
        return
    digest = hashlib.sha256(content).hexdigest()
    pool.unproven[inventory.key] = inventory
    pool.add(
        segments.listed(inventory, digest),
        StoredObject(inventory.key, inventory.size, inventory.sha256),
        StoredObject(key, len(content), digest),
    )


def usable(pool: Pool, extent: Extent, proven: Callable[[Inventory], bool]) -> list[Segment]:
    """Segments without a hole from the log start on, none of them behind the end.

    A segment of an unfinished run is used when `proven` has read it and found it sound.
    """
    begin = [
        each
        for several in pool.by_first.values()
        for each in several
        if each.first <= extent.start < each.end
    ]
    found: list[Segment] = []
    position = max((each.first for each in begin), default=None)
    while position is not None and (chosen := _next(pool, position, extent.end, proven)):
        found.append(chosen)
        position = chosen.end
    return found


def _next(
    pool: Pool, position: int, end: int, proven: Callable[[Inventory], bool]
) -> Segment | None:
    options = sorted(pool.by_first.get(position, []), key=lambda each: each.end, reverse=True)
    for each in options:
        unproven = pool.unproven.get(each.key)
        if each.end <= end and (unproven is None or proven(unproven)):
            return each
    return None


def in_time(found: Sequence[Segment], now: datetime, within: timedelta) -> bool:
    """Whether each run came before the cleaner could have removed what it had not yet seen."""
    moments = [each.decided for each in found] + [now]
    return all(later - earlier < within for earlier, later in pairwise(moments))
