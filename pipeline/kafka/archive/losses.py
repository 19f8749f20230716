"""What a backup of topics or groups no longer holds, and which older set still does.

A job that runs after a disaster backs up what is left, and its set is the newest. So each set is
held against those before it: a topic that went, that was made anew or emptied, a group without
offsets. What was removed on purpose is accepted by name; what a replay made, its journal tells.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pipeline.errors import BackupError, StoreError
from pipeline.kafka.archive.reading import digests, read_index
from pipeline.repository.kinds import (
    ACCEPTED,
    EVIDENCE,
    OFFSETS,
    TOPICS,
    ahead,
    holds,
    is_whole,
    origin_of,
)
from pipeline.repository.sets import BackupSet, Manifest, Repository

KINDS = frozenset({TOPICS.name, OFFSETS.name})
FACT = "less_than"
"""The fact that names what the set before it held and it does not."""
_A_MINUTE = timedelta(minutes=1) // timedelta(milliseconds=1)
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Loss:
    """Something that an older set holds: a topic, or the offsets of a group in a topic."""

    name: str
    held_by: str
    """Label of the newest set that holds it."""
    missed_by: str
    why: str

    def __str__(self) -> str:
        return f"{self.name} {self.why} in {self.missed_by}; {self.held_by} holds it"


def losses(sets: Iterable[BackupSet], made: Collection[str] = ()) -> dict[str, Loss]:
    """Tell what sets of one kind and origin, oldest first, lost on the way and did not get back.

    `made` are ids of topics that replays made: such a life goes on where the one before it ended.
    """
    return walk(sets, made).lost


@dataclass(frozen=True)
class Walk:
    """What was found from the oldest set to the newest, by name."""

    held: dict[str, BackupSet] = field(default_factory=dict)
    """The newest set that holds it, in the life that was not lost, if one was."""
    last: dict[str, BackupSet] = field(default_factory=dict)
    """The newest set that holds it at all."""
    lost: dict[str, Loss] = field(default_factory=dict)

    def take(self, backup: BackupSet, made: Collection[str]) -> None:
        """Go on to the next set."""
        now = held(backup.manifest)
        for name, before in self.held.items():
            if why := _lacks(backup, now, before, name, made):
                self.lost.setdefault(name, Loss(name, before.label, backup.label, why))
            elif name in now:
                self.lost.pop(name, None)
        for name in [*_accepted(backup.manifest, self.held)]:
            for known in (self.held, self.last, self.lost):
                known.pop(name, None)
        self.last.update(dict.fromkeys(now, backup))
        self.held.update({name: backup for name in now if name not in self.lost})


def walk(sets: Iterable[BackupSet], made: Collection[str] = ()) -> Walk:
    """Go through sets of one kind and origin, oldest first."""
    found = Walk()
    for backup in sets:
        found.take(backup, made)
    return found


def of_repository(
    repository: Repository,
    like: Manifest,
    made: Collection[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Loss]:
    """Tell what older sets hold and this one does not, be it committed or not yet."""

    def unreadable(label: str, why: str) -> None:
        say(f"not compared with {label}: {why}")

    older = [one for one in repository.sets(like.kind, unreadable) if one.label < like.label]
    return losses([*comparable(older, like), BackupSet(like, repository.store)], made)


def comparable(sets: Iterable[BackupSet], like: Manifest) -> Iterator[BackupSet]:
    """Backups of the same origin, in their order; not what was salvaged, cut short or misdated."""
    for backup in sets:
        manifest = backup.manifest
        same = origin_of(manifest) == origin_of(like) and manifest.facts.get("limit") is None
        if same and not manifest.facts.get(EVIDENCE) and not ahead(manifest):
            yield backup


def held(manifest: Manifest) -> frozenset[str]:
    """Name what the set holds something of: topics with records, offsets of groups in topics."""
    facts = manifest.facts
    if manifest.kind == TOPICS.name:
        topics: dict[str, Facts] = facts.get("topics", {})
        return frozenset(n for n, told in topics.items() if holds(manifest, n) and _records(told))
    groups: dict[str, Facts] = facts.get("groups", {}) if manifest.kind == OFFSETS.name else {}
    return frozenset(
        f"{name} in {topic}" for name, told in groups.items() for topic in told.get("topics", ())
    )


def _records(told: Facts) -> int:
    return sum(int(each["records"]) for each in told["partitions"].values())


def _lacks(
    backup: BackupSet, now: Collection[str], before: BackupSet, name: str, made: Collection[str]
) -> str | None:
    """Tell why a set does not hold what an older one held; None also where it did not look."""
    manifest = backup.manifest
    if manifest.kind != TOPICS.name:
        return None if name in now else "has no offsets"
    topics = manifest.facts.get("topics", {})
    if name not in topics:
        same = manifest.facts.get("scope") == before.manifest.facts.get("scope")
        return "is gone" if same or is_whole(manifest) else None
    found, was = topics[name]["topic_id"], before.manifest.facts["topics"][name]
    if found not in {was["topic_id"], *made}:
        return "was made anew"
    emptied = holds(manifest, name) and not _records(topics[name])
    return "is empty" if emptied and not _expired(before, name, manifest) else None


def _expired(before: BackupSet, topic: str, now: Manifest) -> bool:
    """Whether its own configuration, as it was archived, explains that no record is left."""
    was = before.manifest.facts["topics"][topic]
    keeps = was["defaults"] | was["overrides"]
    if "compact" in (policy := keeps.get("cleanup.policy", "delete")):
        return True  # the last tombstone went
    if "delete" not in policy or int(keeps.get("retention.bytes", -1)) >= 0:
        return "delete" in policy
    kept = int(keeps.get("retention.ms", -1))
    try:
        listed = digests(before)
        indexes = [read_index(before, topic, int(each), listed) for each in was["partitions"]]
    except (BackupError, StoreError):
        return False  # other checks name it
    last = max((one.newest for index in indexes for one in index.segments), default=-1)
    decided = datetime.fromisoformat(now.facts.get("decided", now.finished.isoformat()))
    return kept >= 0 and last + kept <= decided.timestamp() * 1000 + _A_MINUTE


def _accepted(manifest: Manifest, names: Collection[str]) -> Iterator[str]:
    """Names that the operator gave up with this set; a group in all its topics."""
    for word in manifest.facts.get(ACCEPTED, ()):
        yield from (name for name in names if word in {name, name.rpartition(" in ")[0]})
