"""An archived topic brought back: planned, written, read back whole, and only then let go."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

from pipeline.config import PipelineConfig
from pipeline.errors import PipelineError, RestoreError, TargetSpoilt
from pipeline.kafka.cluster.raw_produce import Producer, RawWriter
from pipeline.kafka.cluster.topics import Topic, cluster_id
from pipeline.kafka.log.place import Place
from pipeline.kafka.replay import preflight, target_topic
from pipeline.kafka.replay.offset_map import Moved, OffsetMap
from pipeline.kafka.replay.replay_filling import means_to_fill, settled_end
from pipeline.kafka.replay.replay_journal import map_key
from pipeline.kafka.replay.replay_plan import PARALLEL, By, PartitionPlan, appended
from pipeline.kafka.replay.replay_proof import Proven, prove
from pipeline.kafka.replay.replay_wish import Plan
from pipeline.kafka.replay.replay_write import Means, PartitionWriter
from pipeline.kafka.replay.target_topic import RETENTION, Target
from pipeline.repository.journal import Journal
from pipeline.tally import Tally

T = TypeVar("T")


@dataclass
class Replay:
    """One replay; with the same journal it goes on where it was interrupted.

    With `give_back_retention` the topic gets its retention back even where that deletes records
    that were just brought back.
    """

    config: PipelineConfig
    plan: Plan
    journal: Journal
    give_back_retention: bool = False
    progress: Callable[[str], None] = lambda _: None
    _stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> list[Proven]:
        """Bring it back and prove it.

        Raises RecoveryRefused before anything was written, later RestoreError or ServerError; then
        the topic is there, unfinished, and only the journal says so.
        """
        with self.journal.alone():
            target = self._target()
            try:
                with ExitStack() as open_:
                    count = min(PARALLEL, max(1, len(self.plan.partitions)))
                    kafka = self.config.kafka
                    new = partial(RawWriter, kafka, tell=self.progress)
                    writers = [open_.enter_context(new()) for _ in range(count)]
                    proven = self._proven_before()
                    if not proven:
                        self._write(target, writers)
                        proven = self._prove(target, writers)
                    self._give_back(target, writers[0], proven)
            except PipelineError as error:
                self.journal.write("replay", "failed", state="unfinished", error=str(error))
                raise
            self.journal.write("replay", "done", target=target.topic.name)
        return proven

    def _proven_before(self) -> list[Proven]:
        """What an earlier run proved; since then others may have written on."""
        told = self.journal.done().get("prove", {}).get("partitions", ())
        return [Proven(**{**each, "older": tuple(each["older"])}) for each in told]

    def _target(self) -> Target:
        """The topic that takes it, held; made, or the one that an earlier run made."""
        done = self.journal.done() if self.journal.path.exists() else {}
        name = self.plan.wish.target
        found = target_topic.existing(self.config.kafka, name)
        if told := done.get("target"):
            if found is None or str(found.topic_id) != told["topic_id"]:
                raise TargetSpoilt(
                    f"{name} is not the topic that {self.journal.recovery} wrote to: it was "
                    "deleted, or made anew, meanwhile. Start a new replay"
                )
            return Target(found, told["overrides"], told["deletes"])
        if found is None:
            return self._made(name)
        return self._taken(found)

    def _made(self, name: str) -> Target:
        kafka, facts, wish = self.config.kafka, self.plan.facts, self.plan.wish
        problems = preflight.of_new(facts["replication"], wish.replication, kafka)
        settings = preflight.of_settings(kafka, facts["overrides"], wish.without_settings)
        preflight.refuse(name, [*problems, *settings])
        replication = wish.replication or facts["replication"]
        overrides = target_topic.due(kafka, facts["overrides"], wish.without_settings)
        for left_out in sorted(facts["overrides"].keys() - overrides.keys()):
            self.progress(
                f"{name}: {left_out} is left out, archived as {facts['overrides'][left_out]}"
            )
        self._begin()
        count = self.plan.partition_count
        topic = target_topic.create(kafka, name, count, replication, overrides)
        return self._held(topic, self.plan.partitions)

    def _taken(self, topic: Topic) -> Target:
        wish = self.plan.wish
        places = {p: Place(topic.name, topic.topic_id, p) for p in topic.partitions}
        with RawWriter(self.config.kafka) as reader:
            bounds = {p: reader.bounds(place) for p, place in places.items()}
        began = self.journal.done().get("plan") if self.journal.path.exists() else None
        made_by_us = began is not None and all(end == 0 for _, end in bounds.values())
        problems = preflight.of_existing(
            topic,
            bounds,
            self.plan.partitions,
            partitions=self.plan.partition_count,
            append=wish.append,
        )
        preflight.refuse(topic.name, () if made_by_us else problems)
        plans = self.plan.partitions
        if wish.append:
            plans = [appended(plan, bounds[plan.partition][1]) for plan in plans]
        self._begin()
        return self._held(topic, plans)

    def _begin(self) -> None:
        self.journal.write(
            "plan",
            "done",
            wish=self.plan.wish.as_facts() | {"archive": self.plan.backup.label},
            modes={plan.partition: str(plan.mode) for plan in self.plan.partitions},
            by=str(self.plan.by),
            cluster=cluster_id(self.config.kafka),
            archived_from=self.plan.backup.manifest.facts.get("cluster_id"),
        )

    def _held(self, topic: Topic, plans: Sequence[PartitionPlan]) -> Target:
        """Note what it is to be in the end; only then make it one that takes and keeps all."""
        with RawWriter(self.config.kafka) as writer:
            records, markers = writer.new_producer(), writer.new_producer()
        self.journal.write(
            "target",
            "done",
            topic=topic.name,
            topic_id=str(topic.topic_id),
            overrides=topic.overrides,
            deletes=(deletes := target_topic.deleting(topic)),
            starts={plan.partition: (plan.start, plan.head) for plan in plans},
            records=records,
            markers=markers,
        )
        return Target(topic, topic.overrides, deletes)

    def _write(self, target: Target, writers: Sequence[RawWriter]) -> None:
        told = self.journal.done()["target"]
        self.plan.partitions = [_started(plan, told["starts"]) for plan in self.plan.partitions]
        resumed = any(line["step"] == "write" for line in self.journal.lines())
        self.journal.write("write", "started")
        self._hold(target)
        total = sum(plan.bytes for plan in self.plan.partitions)
        producer = Producer(*told["records"])
        tally = Tally(f"{target.topic.name}: written", total, self.progress)

        def write(writer: RawWriter, plan: PartitionPlan) -> tuple[int, Moved]:
            place = Place(target.topic.name, target.topic.topic_id, plan.partition)
            end = settled_end(writer, place) if resumed else writer.bounds(place)[1]
            if not resumed and end != (0 if plan.head else plan.start):
                raise TargetSpoilt(f"{place} ends at {end}, somebody has just written to it")
            means = Means(producer, filling[writer])
            one = PartitionWriter(writer, place, means, self._stopped, tally.add)
            return plan.partition, one.run(self.plan.sources[plan.partition], plan, end)

        markers, name = Producer(*told["markers"]), self.journal.recovery
        with means_to_fill(self.config.kafka, writers, self._by(), markers, name) as filling:
            moved = dict(self._over_partitions(writers, write))
        if any(plan.dense for plan in self.plan.partitions):
            backup, wish = self.plan.backup, self.plan.wish
            moves, store = OffsetMap(wish.topic, wish.target, backup.label, moved), backup.store
            key = map_key(self.journal.recovery)
            store.put(key, moves.encoded())
            self.progress(f"offset map: {key}")
        self.journal.write("write", "done", bytes=total)

    def _hold(self, target: Target) -> None:
        """See that it is the topic that we made, and have it refuse and delete nothing."""
        found = target_topic.existing(self.config.kafka, target.topic.name)
        if found is None or found.topic_id != target.topic.topic_id:
            raise TargetSpoilt(f"{target.topic.name} was deleted, or made anew, meanwhile")
        held = target_topic.held_over(target.topic, target.overrides, self.plan.largest)
        target_topic.configure(self.config.kafka, target.topic.name, held)

    def _by(self) -> By:
        gaps = any(plan.markers for plan in self.plan.partitions if not plan.dense)
        return self.plan.by if gaps else By.MARKERS

    def _prove(self, target: Target, writers: Sequence[RawWriter]) -> list[Proven]:
        self.journal.write("prove", "started")
        self._hold(target)  # an operator of topics may have set its configuration back meanwhile
        keeps = _keeps(target)

        def one(reader: RawWriter, plan: PartitionPlan) -> Proven:
            place = Place(target.topic.name, target.topic.topic_id, plan.partition)
            proven = prove(reader, place, self.plan.sources[plan.partition], plan, keeps)
            self.progress(f"{target.topic.name}{proven}")
            return proven

        found = sorted(self._over_partitions(writers, one))
        self.journal.write("prove", "done", partitions=[each._asdict() for each in found])
        return found

    def _give_back(self, target: Target, reader: RawWriter, proven: Sequence[Proven]) -> None:
        """The topic's own configuration, but no retention that would delete what is proven."""
        name, overrides = target.topic.name, dict(target.overrides)
        self.journal.write("give_back", "started")
        eaten = list(_eaten(target, proven))
        held = bool(eaten) and not self.give_back_retention
        if held:
            overrides |= RETENTION
        target_topic.configure(self.config.kafka, name, overrides)
        for each in proven if held or not eaten else ():
            place = Place(name, target.topic.topic_id, each.partition)
            now = reader.bounds(place)
            if now[0] != each.start or now[1] < each.end:
                raise RestoreError(
                    f"{place} was proven at offsets {each.start} to {each.end} and is at {now[0]} "
                    f"to {now[1]} with its configuration back"
                )
        self.journal.write("give_back", "done", overrides=overrides, held=held, eaten=eaten)
        for line in eaten:
            self.progress(f"{name}: {line}")
        if held:
            self.progress(
                f"{name}: retention stays held (retention.ms and retention.bytes are -1); then: "
                f"pipeline restore topic --resume {self.journal.recovery} --give-back-retention"
            )

    def _over_partitions(
        self, writers: Sequence[RawWriter], work: Callable[[RawWriter, PartitionPlan], T]
    ) -> list[T]:
        """Work on all partitions, one at a time over each connection; the first error stops all."""
        free: SimpleQueue[RawWriter] = SimpleQueue()
        for writer in writers:
            free.put(writer)

        def one(plan: PartitionPlan) -> T:
            writer = free.get()
            try:
                return work(writer, plan)
            finally:
                free.put(writer)

        with ThreadPoolExecutor(len(writers), "replay") as pool:
            running = [pool.submit(one, plan) for plan in self.plan.partitions]
            try:
                for done in as_completed(running):
                    done.result()
            except BaseException:
                self._stopped.set()
                for future in running:
                    future.cancel()
                raise
        return [done.result() for done in running]


def _started(plan: PartitionPlan, starts: Mapping[str, Sequence[int]]) -> PartitionPlan:
    start, head = starts[str(plan.partition)]
    return replace(plan, start=start, head=head)


def _keeps(target: Target) -> timedelta | None:
    """How long the topic will keep records; None: for ever."""
    kept = int(target.deletes.get("retention.ms", -1))
    if "delete" not in target.deletes["cleanup.policy"] or kept < 0:
        return None
    return timedelta(milliseconds=min(kept, 10**14))


def _eaten(target: Target, proven: Sequence[Proven]) -> Iterator[str]:
    """What the topic's retention would delete soon after it is given back."""
    keeps = _keeps(target)
    records, size = (sum(each.older[n] for each in proven) for n in (0, 1))
    if keeps is not None and records:
        yield f"{records:,} records in {size:,} bytes are older than its retention of {keeps}"
    limit = int(target.deletes.get("retention.bytes", -1))
    if limit >= 0 and "delete" in target.deletes["cleanup.policy"]:
        for each in proven:
            if each.bytes > limit:
                yield f"[{each.partition}] {each.bytes:,} bytes, retention.bytes is {limit:,}"
