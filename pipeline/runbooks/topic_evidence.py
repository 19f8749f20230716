"""What a recovery knows of its topics before it changes any: archived, harmed, kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import BackupError
from pipeline.repository.sets import BackupSet
from pipeline.runbooks.topic_extent import Harmed

Facts = dict[str, Any]


@dataclass(frozen=True)
class Evidence:
    """One recovery's topics, as the archive, the brokers and what was kept of them tell."""

    topics: Sequence[str]
    archive: BackupSet
    kept: BackupSet | None
    harmed: Sequence[Facts]
    """As `told` wrote it into the journal."""
    read_again: frozenset[str]
    """Topics that CDC alone brings back: the archive is not asked for them."""

    def archived(self, topic: str) -> Mapping[str, Any]:
        """What the archive's manifest says of the topic."""
        found: Mapping[str, Any] = self.archive.manifest.facts["topics"][topic]
        return found

    @property
    def replayed(self) -> list[str]:
        return [name for name in self.topics if name not in self.read_again]

    def same_life(self, topic: str) -> bool:
        """Whether what stood there was the archived topic, and its offsets those of the archive."""
        ids = {one["topic"]: one["topic_id"] for one in self.harmed}
        return bool(ids.get(topic) == self.archived(topic)["topic_id"])

    @property
    def kept_set(self) -> BackupSet:
        """The set of what was kept; BackupError where nothing was."""
        if self.kept is None:
            raise BackupError("nothing was kept of these topics")
        return self.kept

    def another_life(self, topic: str) -> bool:
        """Whether records were kept of a topic that was made anew, with the same partitions."""
        now = self.kept.manifest.facts["topics"].get(topic) if self.kept else None
        if now is None or self.same_life(topic):
            return False
        return bool(now["partitions"].keys() == self.archived(topic)["partitions"].keys())

    def whole(self, topic: str) -> bool:
        """Whether archive and what was kept hold every offset up to the topic's old end."""
        if self.kept is None or topic in self.read_again or not self.same_life(topic):
            return False
        now = self.kept.manifest.facts["topics"].get(topic)
        if now is None or self.unarchived(topic):
            return False
        return all(
            now["partitions"][partition]["log_start"] <= then["end"]
            for partition, then in self.archived(topic)["partitions"].items()
        )

    def unarchived(self, topic: str) -> list[str]:
        """Partitions of what was kept whose records have no place to go back to."""
        now = self.kept.manifest.facts["topics"].get(topic) if self.kept else None
        if now is None or self.another_life(topic):
            return []
        if not self.same_life(topic):
            return sorted(now["partitions"], key=int)
        return sorted(set(now["partitions"]) - set(self.archived(topic)["partitions"]), key=int)


def told(one: Harmed) -> Facts:
    """JSON-able, for the journal."""
    return {
        "topic": one.topic,
        "cdc": one.cdc,
        "topic_id": str(one.present.topic_id) if one.present else None,
        "findings": list(one.findings),
        "unreadable": list(one.unreadable),
    }
