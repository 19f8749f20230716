"""What an operator asks of a replay, and the plan that comes of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import TypeAdapter

from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError, ServerError
from pipeline.kafka.archive.archive import KIND
from pipeline.kafka.archive.reading import Archived, archived
from pipeline.kafka.cluster.raw_produce import RawWriter
from pipeline.kafka.cluster.topics import cluster_id
from pipeline.kafka.log.gaps import Reason
from pipeline.kafka.replay import preflight
from pipeline.kafka.replay.replay_plan import (
    By,
    Mode,
    PartitionPlan,
    Range,
    choose,
    duration,
    plan_partition,
)
from pipeline.kafka.replay.replay_units import first_at
from pipeline.kafka.replay.replay_write import FILLER, filler
from pipeline.repository.kinds import CLUSTER, LATEST, SCHEMAS, chosen
from pipeline.repository.sets import BackupSet, Repository

EVERYTHING = Range()
BY_DEFAULT = 1048588
"""Bytes of the largest batch that brokers take where nobody configured it."""


@dataclass(frozen=True)
class Wish:
    """What the operator asked for; offsets hold in every chosen partition, times are in UTC."""

    topic: str
    archive: str = LATEST
    name: str | None = None
    mode: Mode = Mode.AUTO
    partitions: tuple[int, ...] = ()
    offsets: Range = EVERYTHING
    since: datetime | None = None
    until: datetime | None = None
    append: bool = False
    replication: int | None = None
    without_settings: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        return self.name or self.topic

    def as_facts(self) -> dict[str, Any]:
        """As the journal keeps it."""
        facts: dict[str, Any] = TypeAdapter(Wish).dump_python(self, mode="json")
        return facts

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Wish":
        """As the journal kept it."""
        return TypeAdapter(cls).validate_python(facts)


@dataclass
class Plan:
    """What will be done, partition by partition, from the archive's indexes.

    `cluster` is what the brokers call theirs, None where they did not answer: a plan can be made
    before there is anything to restore into, and is dearer than it says if they refuse markers.
    """

    wish: Wish
    backup: BackupSet
    sources: dict[int, Archived]
    partitions: list[PartitionPlan]
    objective: timedelta
    by: By = By.MARKERS
    cluster: str | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What the archive's manifest says of the topic."""
        found: dict[str, Any] = self.backup.manifest.facts["topics"][self.wish.topic]
        return found

    @property
    def partition_count(self) -> int:
        """How many partitions the topic had, also those that the set lacks."""
        return int(self.facts.get("partition_count", len(self.facts["partitions"])))

    @property
    def largest(self) -> int:
        """The largest batch that the target must take, filler too."""
        head = len(filler(FILLER)[1]) if any(plan.head for plan in self.partitions) else 0
        return max([head, *(plan.largest for plan in self.partitions)]) + preflight.RECODED

    def lines(self) -> Iterator[str]:
        """Say it for people."""
        wish = self.wish
        decided = self.backup.manifest.started
        yield f"{wish.topic} from {self.backup.label}, decided {decided:%Y-%m-%d %H:%M:%S}Z"
        yield f"into {wish.target}{' behind what is there' if wish.append else ''}:"
        for plan in self.partitions:
            yield f"  {plan}"
        takes, objective = duration(self.partitions), self.objective
        yield f"about {takes.total_seconds():,.0f} s, objective {objective.total_seconds():,.0f} s"
        renumbered = [plan.partition for plan in self.partitions if plan.dense]
        if renumbered and wish.mode is Mode.AUTO:
            yield f"exact offsets would miss it: partitions {renumbered} are renumbered, with a map"
        yield from self._of_target()
        if self.largest > BY_DEFAULT:
            yield f"a batch has {self.largest:,} bytes: max.message.bytes is raised meanwhile"
        if why := self.backup.manifest.facts.get("incomplete", {}).get(wish.topic):
            yield f"{self.backup.label} does not hold it whole: {why}"
        for partition, source in self.sources.items():
            if lost := source.index.gaps.get(Reason.LOST):
                yield f"  [{partition}] {lost:,} offsets were LOST before they were archived"

    def _of_target(self) -> Iterator[str]:
        origin = self.backup.manifest.facts.get("cluster_id")
        if self.cluster is None:
            yield "the brokers do not answer: counted as if they let us write markers"
        elif self.cluster != origin:
            yield f"archived from cluster {origin}, this one is {self.cluster}"
        if self.by is By.TRANSACTIONS and any(p.markers and not p.dense for p in self.partitions):
            yield "the brokers let us write no markers (ALTER on the cluster): gaps take longer"


def make(config: PipelineConfig, repository: Repository, wish: Wish, by: By | None = None) -> Plan:
    """Plan a replay; raises ConfigError or BackupError where the archive cannot give it.

    With `by` brokers are not asked what they let us fill gaps with.
    """
    cluster = _cluster(config)
    # a set that was named was judged by who named it; the newest is that of this cluster
    of = {CLUSTER: cluster} if cluster and wish.archive == LATEST else {}
    # the set of a registry is an archive of its storage topic
    kind = SCHEMAS.name if wish.archive.startswith(f"{SCHEMAS.name}-") else KIND
    backup = chosen(repository, kind, wish.archive, topics=[wish.topic], origin=lambda: of)
    sources = {each.index.partition: each for each in archived(backup, [wish.topic])}
    if strangers := set(wish.partitions) - set(sources):
        raise ConfigError(f"{backup.label}: {wish.topic} has no partition {sorted(strangers)}")
    wanted = {n: sources[n] for n in sorted(wish.partitions or sources)}
    plans = [plan_partition(source, _range(source, wish)) for source in wanted.values()]
    objective = config.objectives.topic_replay.rto
    by = by or _allowed(config, gaps=cluster is not None and any(plan.markers for plan in plans))
    plans = [replace(plan, by=by) for plan in plans]
    chosen_plans = choose(plans, wish.mode, objective)
    return Plan(wish, backup, wanted, chosen_plans, objective, by, cluster)


def _cluster(config: PipelineConfig) -> str | None:
    """What the brokers call their cluster; None where they do not answer."""
    try:
        with RawWriter(config.kafka):  # first: it tells at once that nobody answers
            return cluster_id(config.kafka)
    except ServerError:
        return None


def _allowed(config: PipelineConfig, *, gaps: bool) -> By:
    """What the brokers let us fill gaps with, where there are any."""
    if not gaps:
        return By.MARKERS
    try:
        with RawWriter(config.kafka) as writer:
            return By.MARKERS if writer.may_mark() else By.TRANSACTIONS
    except ServerError:
        return By.MARKERS


def _range(source: Archived, wish: Wish) -> Range:
    first, end = wish.offsets
    if wish.since is not None:
        first = first_at(source, int(wish.since.timestamp() * 1000))
    if wish.until is not None:
        end = first_at(source, int(wish.until.timestamp() * 1000))
    return Range(first, end)


def resumed(config: PipelineConfig, repository: Repository, told: Mapping[str, Any]) -> Plan:
    """Plan an interrupted replay again, from what its journal says it was."""
    by = By(told.get("by", By.MARKERS))
    plan = make(config, repository, Wish.of(told["wish"]), by)
    exact = [plan_partition(s, _range(s, plan.wish), by) for s in plan.sources.values()]
    plan.partitions = [
        choose([each], Mode(told["modes"][str(each.partition)]), plan.objective)[0]
        for each in exact
    ]
    return plan
