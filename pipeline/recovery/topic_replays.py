"""Topics made again: the archive at its old offsets, and behind it what was kept of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pipeline.config import PipelineConfig
from pipeline.kafka import target_topic
from pipeline.kafka.replay import Replay
from pipeline.kafka.replay_journal import journal_of, new_journal
from pipeline.kafka.replay_plan import Mode, Range
from pipeline.kafka.replay_wish import Wish, make
from pipeline.recovery.journal import Journal
from pipeline.recovery.topic_evidence import Evidence, Facts
from pipeline.repository import BackupSet, Repository


@dataclass
class Replays:
    """The replays of one recovery. Each has a journal of its own, and `journal` tells which."""

    config: PipelineConfig
    repository: Repository
    journal: Journal
    progress: Callable[[str], None]
    bytes: int = 0
    records: int = 0
    names: list[str] = field(default_factory=list)

    def run(self, evidence: Evidence) -> Facts:
        """Bring every topic back that the archive holds, and make those empty that CDC fills."""
        began = {line["wish"]: line["name"] for line in self.journal.lines() if "wish" in line}
        for wish in _wishes(evidence):
            self._replay(wish, began)
        for topic in evidence.read_again:
            self._make_empty(topic, evidence)
        left = {name: new for name in evidence.replayed if (new := evidence.unarchived(name))}
        for topic, partitions in left.items():
            self.progress(
                f"  {topic}: NOT brought back: partitions {', '.join(partitions)}, added since the "
                f"archive; their records are in {evidence.kept.label if evidence.kept else None}"
            )
        return {
            "bytes": self.bytes,
            "records": self.records,
            "replays": self.names,
            "made_empty": sorted(evidence.read_again),
            "not_brought_back": left,
        }

    def _replay(self, wish: Wish, began: dict[str, str]) -> None:
        plan = make(self.config, self.repository, wish)
        journal = self._journal_of(wish, began)
        found = journal.done() if journal.path.exists() else {}
        if "replay" not in found:
            Replay(self.config, plan, journal, progress=self.progress).run()
        proven = journal.done()["prove"]["partitions"]
        self.bytes += sum(one.bytes for one in plan.partitions)
        self.records += sum(one["records"] for one in proven)
        self.names.append(journal.recovery)

    def _journal_of(self, wish: Wish, began: dict[str, str]) -> Journal:
        """Go on with the replay that an interrupted run began, else begin one."""
        told = repr(wish)
        if told in began:
            return journal_of(self.config, began[told])
        journal = new_journal(self.config, wish.topic)
        self.journal.write("replay", "began", wish=told, name=journal.recovery)
        return journal

    def _make_empty(self, topic: str, evidence: Evidence) -> None:
        """Make a topic as it was configured: it is filled by the re-read."""
        then = evidence.archived(topic)
        if target_topic.existing(self.config.kafka, topic) is None:
            partitions, replication = len(then["partitions"]), then["replication"]
            target_topic.create(
                self.config.kafka, topic, partitions, replication, then["overrides"]
            )


def _wishes(evidence: Evidence) -> Iterator[Wish]:
    for topic in evidence.replayed:
        yield Wish(topic, evidence.archive.label)
        if evidence.kept is not None and evidence.same_life(topic):
            yield from _tails(topic, evidence.archive, evidence.kept)


def _tails(topic: str, archive: BackupSet, kept: BackupSet) -> Iterator[Wish]:
    """What was kept beyond the archive's end, partition by partition."""
    if (found := kept.manifest.facts["topics"].get(topic)) is None:  # it could not be read
        return
    now = found["partitions"]
    for partition, then in archive.manifest.facts["topics"][topic]["partitions"].items():
        first = max(then["end"], now[partition]["log_start"])
        if now[partition]["end"] > first:
            yield Wish(
                topic,
                kept.label,
                mode=Mode.EXACT,
                partitions=(int(partition),),
                offsets=Range(first, None),
                append=True,
            )
