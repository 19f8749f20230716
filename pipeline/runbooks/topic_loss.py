"""Scenario 3 as code: topics or the offsets of groups are lost; bring back what was acknowledged.

Find the extent and prove the archive before anything is touched; stop who writes; keep what the
damaged topics still hold in the repository; replay the archive to its old offsets, and behind it
what was kept; bring the groups back; let CDC go on, from the first row where events are missing.

What is promised of a topic that CDC feeds: up to the archive's end, or where it was kept to its
old end, every event at its offset, once. Beyond that a re-read brings each row's last state and
buries what is gone; the states in between are not told again. Of other topics: everything up to
the archive's end, and what was kept; what lay between is lost and named.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from pipeline.cdc import schemas
from pipeline.config import PipelineConfig
from pipeline.errors import (
    LossNotAccepted,
    ObjectMissing,
    RecoveryRefused,
    RestoreError,
    ServerError,
)
from pipeline.kafka.archive import archive, losses, proof
from pipeline.kafka.cluster.topics import cluster_id
from pipeline.kafka.groups import groups
from pipeline.kafka.groups.group_restore import restore
from pipeline.kafka.replay import replay_journal, target_topic
from pipeline.postgres.server.session import connect
from pipeline.repository.journal import Journal
from pipeline.repository.kinds import CLUSTER, LATEST, chosen
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks import parts, reread, topic_offsets, topic_preconditions, topic_removal
from pipeline.runbooks.parts import Part
from pipeline.runbooks.reconnect import not_stopped, problems, problems_of_services, stopped
from pipeline.runbooks.runbook import Phase, Precondition, Runbook, Step
from pipeline.runbooks.topic_asked import Asked, Way
from pipeline.runbooks.topic_evidence import Evidence, Facts, told
from pipeline.runbooks.topic_extent import (
    Harmed,
    fed_by_cdc,
    missing_groups,
    standing_still,
    survey,
)
from pipeline.runbooks.topic_removal import Kept
from pipeline.runbooks.topic_replays import Replays
from pipeline.runbooks.topic_verdict import still_harmed

__all__ = ["TopicRecovery", "Way", "new_recovery"]


def new_recovery(config: PipelineConfig, what: str = "topics") -> Journal:
    """Open the log of a new recovery in the repository."""
    return Journal.new(config.repository.path, what)


@dataclass
class TopicRecovery(Runbook):
    """One recovery of topics and groups. `observe` hears of each step when it is done.

    `identity` is what the operator typed: the id of the cluster. What was asked for is in the
    journal of a recovery that is resumed, and read from there.
    """

    kind: ClassVar[str] = "topics"
    first: ClassVar[str] = "find_extent"
    last: ClassVar[str] = "verify"
    config: PipelineConfig
    asked: Asked
    journal: Journal
    identity: str
    observe: Callable[[str, Facts], None] = lambda _step, _facts: None
    gate: Callable[[], Sequence[str]] = list
    progress: Callable[[str], None] = lambda _: None
    _repository: Repository = field(init=False)

    def __post_init__(self) -> None:
        self._repository = Repository(FolderStore(self.config.repository.path))
        if (found := self.done.get(self.first)) is not None:
            self.asked = Asked.of(found).resumed(self.asked)

    def identify(self) -> None:
        """Refuse unless the operator typed the id of the cluster whose topics are replaced."""
        if (found := cluster_id(self.config.kafka)) != self.identity:
            raise RecoveryRefused(f"typed {self.identity!r}, the cluster's id is {found}")

    def preconditions(self) -> Sequence[Precondition]:
        unfinished = self.unfinished(self.config.repository.path)
        return topic_preconditions.listed(self.config, self.asked, self._archive(), unfinished)

    def steps(self) -> Sequence[Step]:
        return (
            Step("find_extent", Phase.PREPARE, self.find_extent),
            Step("fence", Phase.STOP, self.fence, self._fenced, until="reconnect"),
            Step("salvage", Phase.KEEP, self.salvage, self._kept_all, until="remove"),
            Step("remove", Phase.RESTORE, self.remove, self._removed, until="replay"),
            Step("replay", Phase.REPLAY, self.replay, self._replayed),
            Step("groups", Phase.REPLAY, self.groups),
            Step("reconnect", Phase.RECONNECT, self.reconnect),
            Step("verify", Phase.VERIFY, self.verify),
        )

    @property
    def topics(self) -> Sequence[str]:
        return self.asked.topics

    def plan(self) -> Iterator[str]:
        """Say what is harmed and what stands in the way of a recovery; touches nothing."""
        backup, offsets = self._archive(), self._offsets()
        harmed = survey(self.config, backup, self.topics)
        yield from (line for one in harmed for line in one.lines())
        lost = missing_groups(self.config, offsets) if offsets else []
        yield from (f"group {line}" for line in lost)
        yield from self._older(backup, "--from")
        yield from self._older(offsets, "--offsets") if offsets else ()
        yield f"{len(harmed)} topics and {len(lost)} groups are harmed, by {backup.label}"

    def _older(self, chosen: BackupSet, option: str) -> Iterator[str]:
        """Name what an older set holds and the chosen one does not."""
        made = replay_journal.made(self.config.repository.path)
        found = losses.of_repository(self._repository, chosen.manifest, made, self.progress)
        for loss in found.values():
            yield f"MORE IN AN OLDER SET  {loss}: {option} {loss.held_by}"

    def find_extent(self) -> Facts:
        """Look what is harmed, and prove that the archive can give it back; touches nothing."""
        if (name := self.asked.instead_of) is not None:
            other = Journal.named(self.config.repository.path, self.kind, name)
            topic_preconditions.abandon(other, self.progress)
        backup = self._archive()
        harmed = survey(self.config, backup, self.topics) if self.topics else []
        for line in (line for one in harmed for line in one.lines()):
            self.progress(f"  {line}")
        if sound := set(self.topics) - {one.topic for one in harmed}:
            raise RecoveryRefused(f"nothing is wrong with {', '.join(sorted(sound))}: not replaced")
        self._refuse_loss(harmed)
        if bad := [f"{p.subject}: {p.problem}" for p in proof.walk(backup) if p.problem]:
            raise RestoreError(f"the archive {backup.label} is damaged: {'; '.join(bad[:5])}")
        offsets = self._offsets()
        return self.asked.as_facts() | {
            "archive": backup.label,
            "offsets": offsets.label if offsets else None,
            "harmed": [told(one) for one in harmed],
            "groups": missing_groups(self.config, offsets) if offsets else [],
        }

    def _refuse_loss(self, harmed: Sequence[Harmed]) -> None:
        """What cannot be read cannot be kept: removing it must be accepted by name."""
        given_up = [one for one in harmed if one.unreadable and not one.cdc]
        if unsaid := [one.topic for one in given_up if one.topic not in self.asked.lose]:
            names = " ".join(f"--lose {topic}" for topic in unsaid)
            raise LossNotAccepted(
                f"{', '.join(unsaid)}: a batch cannot be read, so what was written since the "
                f"archive cannot be kept. To give it up, say so by name: {names}"
            )

    def fence(self) -> Facts:
        """Stop the connectors, and see that nobody else writes to what will be replaced."""
        cdc = stopped(self.config) if self._fed else {"connectors": [], "offsets": {}}
        there = [n for n in self.topics if target_topic.existing(self.config.kafka, n)]
        ends = standing_still(self.config, there)
        return {"connectors": cdc["connectors"], "source_offsets": cdc["offsets"], "ends": ends}

    def _fenced(self, facts: Facts) -> str | None:
        return not_stopped(self.config, facts["connectors"])

    def salvage(self) -> Facts:
        """Keep what the damaged topics hold, and where groups stand, before anything is removed."""
        backup = self._repository.get(self.done["find_extent"]["archive"])
        # again: between the first look and the fence a connector may have made a topic anew
        harmed = survey(self.config, backup, self.topics) if self.topics else []
        self._refuse_loss(harmed)
        there = [one for one in harmed if one.present is not None]
        readable = [one.topic for one in there if not one.unreadable]
        kept, logs = topic_removal.keep(
            self.config, self._repository, readable, self.journal.recovery, self.progress
        )
        topic_removal.refuse_unkept(logs, self.asked.lose)
        offsets = None
        if there:
            evidence = self.journal.recovery
            offsets = groups.take(self.config, self._repository, evidence=evidence)
        return {
            "harmed": [told(one) for one in harmed],
            "kept": kept.label if kept else None,
            "logs": {name: [one.topic_id, one.ends] for name, one in logs.items()},
            "not_kept": [one.topic for one in there if one.unreadable],
            "offsets": offsets.label if offsets else None,
        }

    def _kept_all(self, facts: Facts) -> str | None:
        """Whether what stands there now is no more than what was kept of it."""
        for name in self.topics:
            found = target_topic.existing(self.config.kafka, name)
            if found is None or name in facts["not_kept"]:
                continue
            kept = Kept(*facts["logs"].get(name, ["", {}]))
            if more := topic_removal.grown(self.config, found, kept):
                return more
        return None

    def remove(self) -> Facts:
        """Delete what will be made again: the operator named it, and all of it was kept."""
        facts, gone = self.done["salvage"], []
        for name in self.topics:
            if (found := target_topic.existing(self.config.kafka, name)) is None:
                continue
            kept = None if name in facts["not_kept"] else Kept(*facts["logs"].get(name, ["", {}]))
            if more := topic_removal.remove(self.config, found, kept):
                raise ServerError(
                    f"{more}: somebody still writes to it. Nothing of it was removed. Stop the "
                    "producers, then go on: what they wrote will be kept as well"
                )
            gone.append(name)
        return {"removed": gone}

    def _removed(self, _facts: Facts) -> str | None:
        ids = {one["topic"]: one["topic_id"] for one in self.done["salvage"]["harmed"]}
        for name in self.topics:
            found = target_topic.existing(self.config.kafka, name)
            if found is not None and str(found.topic_id) == ids.get(name):
                return f"{name} is there again"
        return None

    def replay(self) -> Facts:
        """Bring the archive back to its old offsets, and behind it what was kept."""
        replays = Replays(
            self.config,
            self._repository,
            self.journal,
            self.progress,
            replication=self.asked.replication,
            without=tuple(self.asked.without_settings),
        )
        return replays.run(self._evidence)

    def _replayed(self, facts: Facts) -> str | None:
        """Whether the topics that were brought back are still the same ones."""
        for name, topic_id in facts.get("targets", {}).items():
            found = target_topic.existing(self.config.kafka, name)
            if found is None or str(found.topic_id) != topic_id:
                return f"{name} was deleted, or made anew, since it was brought back"
        return None

    def groups(self) -> Facts:
        """Bring offsets back, from what was kept now where there was anything, else the backup."""
        evidence, moved = self._evidence, dict[str, list[str]]()
        backed_up, kept = self.done["find_extent"]["offsets"], self.done["salvage"]["offsets"]
        lost = [line.partition(":")[0] for line in self.done["find_extent"]["groups"]]
        for label, names in topic_offsets.sources(evidence, backed_up, kept):
            for topic in names or (None,):
                replays = self.done["replay"]["replays"]
                done = restore(
                    self.config.kafka,
                    self._repository.get(label),
                    moves=topic_offsets.moves(self._repository, evidence, replays, topic),
                    topics=[topic] if topic else (),
                    groups=[] if topic else lost,
                    progress=self.progress,
                )
                for group, some in done.items():
                    moved.setdefault(group, []).extend(str(one) for one in some)
        return {"groups": moved}

    def reconnect(self) -> Facts:
        """Let CDC go on; from the first row where events are missing."""
        if not self._fed:
            return {"reread": False}
        evidence = self._evidence
        if all(evidence.whole(name) for name in self._fed):
            reread.go_on(self.config)
            return {"reread": False}
        left_out = self.asked.without_topics
        found = reread.every_row(self.config, self.journal.recovery, self.progress, left_out)
        return {"reread": True, "reconciliation": found.facts()}

    def verify(self) -> Facts:
        """Ask topics, groups, pipeline and gate."""
        evidence, wrong = self._evidence, list[str]()
        if evidence.replayed:  # what was read again has other offsets
            replays = self.done["replay"]["replays"]
            wrong += still_harmed(self.config, evidence, replays, self.progress)
        if (offsets := self.done["find_extent"]["offsets"]) is not None:
            wrong += missing_groups(self.config, self._repository.get(offsets), self.topics)
        if self._fed:
            with connect(self.config.postgres, autocommit=True) as connection:
                wrong += problems(self.config, connection, self.asked.without_topics)
        if self._registry_waits:
            told = "the registry is down, and starts on what came back"
            self.progress(
                f"  NOT asked for ids of schemas: {told}. Then: pytest checks/ -k registry"
            )
        else:
            wrong += problems_of_services(self.config, self._of_services)
        wrong += self.gate()
        if wrong:
            raise RestoreError("not recovered: " + "; ".join(wrong))
        return {"problems": 0}

    @property
    def _registry_waits(self) -> bool:
        """Whether the registry's own topic is among these, and the registry is still down."""
        own = {self.config.registry.storage_topic, *schemas.STORAGE}
        return not own.isdisjoint(self.topics) and Part.REGISTRY in parts.down(self.config)

    @property
    def _fed(self) -> list[str]:
        return [name for name in self.topics if fed_by_cdc(self.config, name)]

    @property
    def _of_services(self) -> list[str]:
        fed, out = self._fed, self.asked.without_topics
        return [name for name in self.topics if name not in fed and name not in out]

    @property
    def _evidence(self) -> Evidence:
        kept = self.done["salvage"]["kept"]
        return Evidence(
            self.topics,
            self._repository.get(self.done["find_extent"]["archive"]),
            self._repository.get(kept) if kept else None,
            self.done["salvage"]["harmed"],
            frozenset(self._fed if self.asked.way is Way.CDC else ()),
        )

    def _archive(self) -> BackupSet:
        """The set that was named, else the newest of this cluster that holds every topic."""
        return self._chosen(archive.KIND, self.asked.archive, self.topics)

    def _offsets(self) -> BackupSet | None:
        try:
            return self._chosen(groups.KIND, self.asked.offsets)
        except ObjectMissing:
            if self.asked.offsets is not None:
                raise
            self.progress("  no backup of offsets: groups are not restored")
            return None

    def _chosen(self, kind: str, label: str | None, topics: Collection[str] = ()) -> BackupSet:
        return chosen(
            self._repository,
            kind,
            label or LATEST,
            topics=topics,
            origin=lambda: {CLUSTER: self.identity},
            typed=self.asked.origin,
            say=lambda line: self.progress(f"  {line}"),
        )
