"""Topics made again: the archive at its old offsets, and behind it what was kept of them.

A replay that somebody else has written into cannot go on. What stands there is then kept as well,
the topic is removed as carefully as the first time, and its replays begin again; the strangers'
records, which were acknowledged to somebody, go behind the rest.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError, RecoveryRefused, TargetSpoilt
from pipeline.kafka.replay import target_topic
from pipeline.kafka.replay.replay import Replay
from pipeline.kafka.replay.replay_journal import journal_of, new_journal
from pipeline.kafka.replay.replay_wish import Wish, make
from pipeline.repository.journal import Journal
from pipeline.repository.sets import BackupSet, Repository
from pipeline.runbooks.topic_evidence import Evidence, Facts
from pipeline.runbooks.topic_removal import keep, refuse_unkept, remove
from pipeline.runbooks.topic_wishes import strangers, wishes

ROUNDS = 3
"""How often one run of a recovery makes a topic anew that somebody keeps writing to."""


@dataclass
class Replays:
    """The replays of one recovery. Each has a journal of its own, and `journal` tells which."""

    config: PipelineConfig
    repository: Repository
    journal: Journal
    progress: Callable[[str], None]
    replication: int | None = None
    without: tuple[str, ...] = ()
    bytes: int = 0
    records: int = 0
    names: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)

    def run(self, evidence: Evidence) -> Facts:
        """Bring every topic back that the archive holds, and make those empty that CDC fills."""
        for topic in evidence.replayed:
            self._topic(topic, evidence)
        for topic in evidence.read_again:
            self._make_empty(topic, evidence)
        for topic, told in self.left.items():
            self.progress(f"  {topic}: NOT brought back: {told}")
        return {
            "bytes": self.bytes,
            "records": self.records,
            "replays": self.names,
            "targets": {name: self._id_of(name) for name in evidence.topics},
            "made_empty": sorted(evidence.read_again),
            "not_brought_back": self.left,
        }

    def made_by_others(self, topics: Sequence[str]) -> list[str]:
        """Name those of these topics that are there, and that no replay of this recovery made."""
        there = ((name, self._id_of(name)) for name in topics)
        return [name for name, found in there if found and found not in self._going_on(name)]

    def _topic(self, topic: str, evidence: Evidence) -> None:
        self._note_left(topic, evidence)
        for left in reversed(range(ROUNDS)):
            try:
                self._clear_foreign(topic, evidence)
                for wish in wishes(topic, evidence, self.replication, self.without):
                    self._replay(wish)
                for wish in self._strangers(topic, evidence):
                    self._replay(wish)
            except TargetSpoilt as spoilt:
                if not left:
                    raise
                self.progress(f"  {spoilt}")
                self.journal.write("replay", "spoilt", topic=topic, why=str(spoilt))
            else:
                return

    def _note_left(self, topic: str, evidence: Evidence) -> None:
        """Name what has no place to go back to: it is in the set of what was kept."""
        if added := evidence.unarchived(topic):
            same = evidence.same_life(topic)
            why = "added since the archive" if same else "of a topic that was made anew since"
            self.left[topic] = (
                f"partitions {', '.join(added)}, {why}; their records are in "
                f"{evidence.kept_set.label}"
            )

    def _clear_foreign(self, topic: str, evidence: Evidence) -> None:
        """Keep and remove what stands in the topic's place and is not a replay that can go on."""
        found = target_topic.existing(self.config.kafka, topic)
        if found is None or str(found.topic_id) in self._going_on(topic):
            return
        kept, told = keep(
            self.config, self.repository, [topic], self.journal.recovery, self.progress
        )
        refuse_unkept(told, ())
        if kept is not None and any(p["records"] for p in _partitions(kept, topic).values()):
            if _partitions(kept, topic).keys() != evidence.archived(topic)["partitions"].keys():
                self.left[topic] = f"what was written into it meanwhile; it is in {kept.label}"
            else:
                life = str(found.topic_id)
                self.journal.write("replay", "kept", topic=topic, label=kept.label, topic_id=life)
        if more := remove(self.config, found, told[topic]):
            raise TargetSpoilt(f"{more}: somebody keeps writing to {topic}; stop the producers")

    def _going_on(self, topic: str) -> set[str]:
        """Ids of topics that a replay of this recovery made and can go on with."""
        ids = set[str]()
        for line in self._told(topic):
            if line["result"] == "spoilt":
                ids.clear()
            elif line["result"] == "began" and (done := self._done(line["name"])):
                ids |= {done["target"]["topic_id"]} if "target" in done else set()
        return ids

    def _producers(self, topic: str) -> set[int]:
        """Ids under which replays of this recovery wrote: what is not theirs is a stranger's."""
        return {
            int(done["target"][who][0])
            for line in self._told(topic)
            if line["result"] == "began" and "target" in (done := self._done(line["name"]))
            for who in ("records", "markers")
        }

    def _strangers(self, topic: str, evidence: Evidence) -> list[Wish]:
        """What others wrote to a life of the topic that was removed, oldest life first."""
        lives = {one["topic_id"]: one["label"] for one in self._told(topic) if "label" in one}
        kept = [self.repository.get(label) for label in lives.values()]
        if evidence.another_life(topic):
            kept.insert(0, evidence.kept_set)
        ours = self._producers(topic)
        return [wish for one in kept for wish in strangers(topic, one, ours)]

    def _told(self, topic: str) -> list[dict[str, Any]]:
        lines = self.journal.lines() if self.journal.path.exists() else ()
        return [line for line in lines if line["step"] == "replay" and line.get("topic") == topic]

    def _done(self, name: str) -> Mapping[str, Facts]:
        journal = journal_of(self.config, name)
        return journal.done() if journal.path.exists() else {}

    def _replay(self, wish: Wish) -> None:
        plan = make(self.config, self.repository, wish)
        journal = self._journal_of(wish)
        if "replay" not in self._done(journal.recovery):
            try:
                Replay(self.config, plan, journal, progress=self.progress).run()
            except (ConfigError, RecoveryRefused) as refusal:
                if (found := self._id_of(wish.topic)) and found not in self._going_on(wish.topic):
                    raise TargetSpoilt(f"{wish.topic} was made by others: {refusal}") from refusal
                raise
        proven = journal.done()["prove"]["partitions"]
        self.bytes += sum(one.bytes for one in plan.partitions)
        self.records += sum(one["records"] for one in proven)
        if not wish.append:  # one that appends says nothing of where the archive's records went
            self.names.append(journal.recovery)

    def _journal_of(self, wish: Wish) -> Journal:
        """Go on with the replay that an interrupted run began, else begin one."""
        asked, begun = wish.as_facts(), None
        for line in self._told(wish.topic):
            if line["result"] == "spoilt":
                begun = None
            elif line["result"] == "began" and Wish.of(line["wish"]).as_facts() == asked:
                begun = line["name"]
        if begun is not None:
            return journal_of(self.config, begun)
        journal = new_journal(self.config, wish.topic)
        self.journal.write("replay", "began", topic=wish.topic, wish=asked, name=journal.recovery)
        return journal

    def _make_empty(self, topic: str, evidence: Evidence) -> None:
        """Make a topic as it was configured: it is filled by the re-read."""
        if self._id_of(topic) is None:
            then = evidence.archived(topic)
            due = target_topic.due(self.config.kafka, then["overrides"], self.without)
            replicas = self.replication or then["replication"]
            target_topic.create(self.config.kafka, topic, len(then["partitions"]), replicas, due)

    def _id_of(self, topic: str) -> str | None:
        found = target_topic.existing(self.config.kafka, topic)
        return str(found.topic_id) if found else None


def _partitions(kept: BackupSet, topic: str) -> Mapping[str, Facts]:
    found: Mapping[str, Facts] = kept.manifest.facts["topics"][topic]["partitions"]
    return found
