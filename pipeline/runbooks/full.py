"""Everything is lost as code: database, topics, groups and CDC come back as one recovery.

The steps of a point-in-time recovery up to the opened database; then every archived topic into
brokers that hold none of them, offsets of groups, and, once Connect and the registry were started
on their own topics, CDC and the gate as always. Database and topics need not be of one moment: what
the topics lack is read again from the tables, what they have and the tables do not is buried.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import ClassVar

from pipeline.config import PipelineConfig
from pipeline.errors import RestoreError, ServerError
from pipeline.kafka.groups.group_restore import restore
from pipeline.kafka.replay import preflight, replay_wish, target_topic
from pipeline.kafka.replay.replay_plan import duration
from pipeline.repository.journal import Journal
from pipeline.repository.sets import BackupSet, Repository
from pipeline.runbooks import full_sets, parts, topic_offsets
from pipeline.runbooks.full_sets import NO_OFFSETS, Sources
from pipeline.runbooks.parts import Part
from pipeline.runbooks.point_in_time import PointInTimeRecovery
from pipeline.runbooks.runbook import Facts, Phase, Precondition, Step
from pipeline.runbooks.topic_evidence import Evidence
from pipeline.runbooks.topic_extent import missing_groups
from pipeline.runbooks.topic_replays import Replays

THEIRS = (Part.CONNECT, Part.REGISTRY)
"""They keep their state in topics, and would make these anew and empty."""
_STOP_THEM = "Stop Connect and the registry, and remove the topics that they made"


def new_recovery(config: PipelineConfig) -> Journal:
    """Open the log of a new recovery in the repository."""
    return Journal.new(config.repository.path, FullRecovery.kind)


@dataclass
class FullRecovery(PointInTimeRecovery):
    """One recovery of everything. `replication` and `without_settings` are of the topics.

    The newest archive of topics, the newest offsets and the newest set of the registry are taken,
    of whatever cluster: the brokers are new, and nothing of them is replaced.
    """

    kind: ClassVar[str] = "full"
    replication: int | None = None
    without_settings: Sequence[str] = ()
    _sets: Repository = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._sets = Repository(self.store)
        told = self.done.get(self.first, {})
        self.replication = self.replication or told.get("replication")
        self.without_settings = self.without_settings or told.get("without_settings", ())

    def preconditions(self) -> Sequence[Precondition]:
        return (*super().preconditions(), *self.of_topics())

    def of_topics(self) -> Sequence[Precondition]:
        """List what must hold of the topics, beside what the database needs."""
        return (
            Precondition(
                "topics",
                partial(self._asked, Sources.unsound_archive),
                "An older archive may be whole, and lacks what came later: --without and the "
                "label of this one",
            ),
            Precondition(
                "schemas",
                partial(self._asked, Sources.unsound_registry),
                "No set of the registry will do. Each part comes back by itself: `pipeline "
                "recover postgres`, `recover topics`, `recover registry`",
            ),
            Precondition(
                "offsets",
                partial(self._asked, Sources.unsound_offsets),
                "Groups go on from an older backup with --without and the label of this one",
            ),
            Precondition("empty", self._not_empty, _STOP_THEM),
            Precondition("replicas", self._replicas, "Start more brokers, or --replication"),
        )

    def steps(self) -> Sequence[Step]:
        steps = list(super().steps())
        names = [step.name for step in steps]
        behind, last = names.index("reconnect"), self.last
        return (
            *steps[:behind],
            Step("topics", Phase.REPLAY, self.topics, self._brought_back, until=last),
            Step("groups", Phase.REPLAY, self.groups),
            Step("servers", Phase.RECONNECT, self.servers, until=last),
            *steps[behind:],
        )

    def plan_of_topics(self) -> Iterator[str]:
        """Say which topics would be made, and about how long that takes."""
        yield from self.sources.lines()
        plans = list[replay_wish.Plan]()
        for of in self.evidence:
            told = of.archive.manifest.facts
            yield f"topics            {of.archive.label}, decided {told['decided']}"
            for name in of.topics:
                wish = self._wish(name, of.archive)
                plans.append(replay_wish.make(self.config, self._sets, wish))
                yield f"  makes           {name}: {', '.join(map(str, plans[-1].partitions))}"
        takes = sum(duration(plan.partitions).total_seconds() for plan in plans)
        yield f"  about           {takes:,.0f} s"
        for step in self.steps():
            yield f"step              {step.name.replace('_', ' ')} ({step.phase})"

    def check_identity(self) -> Facts:
        """Write down which sets are taken; what is newer tomorrow does not change a recovery."""
        return super().check_identity() | {
            **self.sources.labels(),
            "replication": self.replication,
            "without_settings": list(self.without_settings),
        }

    def topics(self) -> Facts:
        """Bring every archived topic back, that of the registry first."""
        replays, done, targets = self._replays(), Facts(), Facts()
        if strange := self._made_by_others(replays):
            raise ServerError(
                f"{', '.join(strange)}: somebody made them meanwhile. {_STOP_THEM}, then go on"
            )
        for of in reversed(self.evidence):
            done = replays.run(of)
            targets |= done["targets"]
        return done | {"targets": targets}

    def _brought_back(self, facts: Facts) -> str | None:
        """Whether the topics that were brought back are still the same ones."""
        for name, topic_id in facts.get("targets", {}).items():
            found = target_topic.existing(self.config.kafka, name)
            if found is None or str(found.topic_id) != topic_id:
                return f"{name} was deleted, or made anew, since it was brought back"
        return None

    def groups(self) -> Facts:
        """Commit the offsets of every group, each proven by the record that stands there."""
        if (backup := self.sources.offsets) is None:
            return {"groups": {}, "left_out": NO_OFFSETS}
        moved, replays = dict[str, list[str]](), self.done["topics"]["replays"]
        for of, topic in self._topics():
            moves = topic_offsets.moves(self._sets, of, replays, topic)
            done = restore(
                self.config.kafka, backup, moves=moves, topics=[topic], progress=self.progress
            )
            for group, some in done.items():
                moved.setdefault(group, []).extend(map(str, some))
        return {"groups": moved}

    def servers(self) -> Facts:
        """Expect Connect and the registry, which find their state in the topics now."""
        if self.cdc:
            self._expect_every_part()
        return {}

    def verify(self) -> Facts:
        """Ask for the offsets of groups too, then what a point-in-time recovery asks."""
        backup = self.sources.offsets
        if backup is not None and (lost := missing_groups(self.config, backup)):
            raise RestoreError(f"the gate is closed: {'; '.join(lost)}")
        return super().verify()

    def _replays(self) -> Replays:
        return Replays(
            self.config,
            self._sets,
            self.journal,
            self.progress,
            replication=self.replication,
            without=tuple(self.without_settings),
        )

    @property
    def evidence(self) -> Sequence[Evidence]:
        """What each topic comes back from; of the registry's own topic the newest word counts."""
        archive, registry = self.sources.archive, self.sources.registry
        topics = list(archive.manifest.facts["topics"])
        if registry is None:
            return [Evidence(topics, archive, None, (), frozenset())]
        storage = registry.manifest.facts["storage"]
        others = [name for name in topics if name != storage]
        return [
            Evidence(others, archive, None, (), frozenset()),
            Evidence([storage], registry, None, (), frozenset()),
        ]

    def _topics(self) -> Iterator[tuple[Evidence, str]]:
        """Each topic, with what it comes back from."""
        for of in self.evidence:
            yield from ((of, name) for name in of.topics)

    def _made_by_others(self, replays: Replays) -> list[str]:
        return [name for of in self.evidence for name in replays.made_by_others(of.topics)]

    def _wish(self, name: str, backup: BackupSet) -> replay_wish.Wish:
        without = tuple(self.without_settings)
        return replay_wish.Wish(
            name, backup.label, replication=self.replication, without_settings=without
        )

    def _asked(self, ask: Callable[[Sources], Iterator[str]]) -> Iterator[str]:
        """Ask of the sets; that none is there stands in the way as well."""
        yield from ask(self.sources)

    @cached_property
    def sources(self) -> Sources:
        """The sets that are taken: those of the journal once the recovery was begun."""
        told = self.done.get(self.first)
        if told is None:
            return full_sets.choose(self._sets, self.without)
        return full_sets.begun(self._sets, dict(told))

    def _not_empty(self) -> Iterator[str]:
        """Topics that are there already are not replaced, and who would make them is not up."""
        down = parts.down(self.config)
        if Part.KAFKA in down:
            return  # its brokers are new, and are asked again before the first topic is made
        yield from (
            f"{name} is on these brokers already" for name in self._made_by_others(self._replays())
        )
        for part in THEIRS:
            if part not in down and (part is not Part.REGISTRY or self.config.registry.url):
                yield f"{part} runs, and would make its topics anew"

    def _replicas(self) -> Iterator[str]:
        if Part.KAFKA in parts.down(self.config):
            return
        for of, name in self._topics():
            known = of.archived(name)
            for told in (
                *preflight.of_new(known["replication"], self.replication, self.config.kafka),
                *preflight.of_settings(
                    self.config.kafka, known["overrides"], self.without_settings
                ),
            ):
                yield f"{name}: {told}"
