"""A replayed topic beside its archive, record by record as a read_committed consumer sees both."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from checks.kafka_records import fields, seen
from pipeline.config import KafkaConfig, PipelineConfig
from pipeline.kafka.archive.reading import Archived
from pipeline.kafka.cluster.raw import Fetched, RawReader
from pipeline.kafka.cluster.topics import Extent, Topic, extents
from pipeline.kafka.log.batches import Marker, marker, walk
from pipeline.kafka.log.place import Place
from pipeline.kafka.log.records import Record, unpacked
from pipeline.kafka.replay import replay_wish
from pipeline.kafka.replay.replay_journal import KIND
from pipeline.kafka.replay.replay_plan import PartitionPlan
from pipeline.kafka.replay.target_topic import existing
from pipeline.repository.journal import Journal
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore

AT_MOST = 20
"""Differences of a partition that are named."""
TOMBSTONE = None


class Difference(NamedTuple):
    """What a consumer would see otherwise, at an offset of the replayed topic."""

    offset: int
    problem: str


@dataclass(frozen=True)
class ComparedPartition:
    """One partition, then and now."""

    kafka: KafkaConfig
    place: Place
    archived: Archived
    plan: PartitionPlan
    proven_end: int
    extent: Extent

    def __str__(self) -> str:
        return str(self.place)

    @property
    def begin(self) -> int:
        """Where its replay began to write."""
        return self.plan.start

    def then(self) -> Iterator[Record]:
        """Records that were to come back."""
        return seen(self.archived, self.plan.first, self.plan.end)

    def now(self) -> Iterator[Record]:
        """Records of the topic, up to where the replay was proven."""
        with RawReader(self.kafka) as reader:
            start = max(self.begin, self.extent.start)
            for fetched in reader.batches(self.place, start, self.proven_end):
                yield from _visible(fetched, str(self.place))

    @cached_property
    def differences(self) -> list[Difference]:
        """The first of them, in order of offsets."""
        compare = _in_order if self.plan.dense else _by_offset
        found: list[Difference] = []
        for each in compare(self.then(), self.now()):
            found.append(each)
            if len(found) == AT_MOST:
                break
        return found

    def folds(self) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        """Value and headers of each live key, then and now."""
        return fold(self.then()), fold(self.now())


@dataclass(frozen=True)
class Comparison:
    """One replay: the topic that it wrote, and its partitions."""

    topic: Topic
    journal: Journal
    archived: dict[str, str]
    """Overrides that the topic had when it was archived."""
    partitions: list[ComparedPartition]
    held: bool
    """Whether the replay's journal says that retention stays held."""
    superseded: bool = False
    """Whether another one appended to it, and gave the topic its configuration."""


def compared(config: PipelineConfig) -> Iterator[Comparison]:
    """Finished replays into each topic that exists, the newest last. Raises PipelineError.

    What a replay appended leaves the one before it as it was; any other took its place. Of a
    compacted topic only the newest can be compared: it outdates what it was appended to.
    """
    found: dict[str, list[Journal]] = {}
    for journal in Journal.every(config.repository.path, KIND):
        done = journal.done()
        if "replay" in done and "target" in done:
            name, appended = done["target"]["topic"], done["plan"]["wish"]["append"]
            found[name] = [*(found.get(name, []) if appended else []), journal]
    for name, replays in found.items():
        topic = existing(config.kafka, name)
        if topic is not None:
            *older, newest = (_comparison(config, topic, journal) for journal in replays)
            for each in older:
                kept = [part for part in each.partitions if not part.archived.index.compacted]
                yield replace(each, partitions=kept, superseded=True)
            yield newest


def _comparison(config: PipelineConfig, topic: Topic, journal: Journal) -> Comparison:
    done, repository = journal.done(), Repository(FolderStore(config.repository.path))
    plan = replay_wish.resumed(config, repository, done["plan"])
    ends = extents(config.kafka, topic.places)
    starts = {int(partition): began for partition, began in done["target"]["starts"].items()}
    proven = {each["partition"]: each["end"] for each in done["prove"]["partitions"]}
    places = {place.partition: place for place in topic.places}
    return Comparison(
        topic=topic,
        journal=journal,
        archived={
            name: value
            for name, value in plan.facts["overrides"].items()
            if name not in plan.wish.without_settings  # the operator did not want it back
        },
        held=bool(done.get("give_back", {}).get("held")),
        partitions=[
            ComparedPartition(
                kafka=config.kafka,
                place=places[each.partition],
                archived=plan.sources[each.partition],
                # as it was done: what was appended has no start of the log to fill up to
                plan=replace(each, start=start, head=head),
                proven_end=min(proven[each.partition], ends[places[each.partition]].end),
                extent=ends[places[each.partition]],
            )
            for each in plan.partitions
            if each.partition in places
            for start, head in [starts[each.partition]]
        ],
    )


def _visible(fetched: Fetched, where: str) -> Iterator[Record]:
    aborted = {each.producer_id: each.first_offset for each in fetched.aborted}
    for batch, view in walk(fetched.data, where):
        if batch.control:
            if marker(batch, view, where) is Marker.ABORT:
                aborted.pop(batch.producer_id, None)
            continue
        hidden = (
            batch.transactional and aborted.get(batch.producer_id, 1 << 62) <= batch.base_offset
        )
        if not hidden:
            yield from unpacked(batch, view, where)


def _by_offset(then: Iterator[Record], now: Iterator[Record]) -> Iterator[Difference]:
    wanted, found = next(then, None), next(now, None)
    while wanted is not None or found is not None:
        if found is None or (wanted is not None and wanted.offset < found.offset):
            assert wanted is not None
            yield Difference(wanted.offset, f"missing: {_told(wanted)}")
            wanted = next(then, None)
        elif wanted is None or found.offset < wanted.offset:
            yield Difference(found.offset, f"not from the archive: {_told(found)}")
            found = next(now, None)
        else:
            if problem := _differ(wanted, found):
                yield Difference(found.offset, problem)
            wanted, found = next(then, None), next(now, None)


def _in_order(then: Iterator[Record], now: Iterator[Record]) -> Iterator[Difference]:
    last = 0
    for wanted in then:
        found = next(now, None)
        if found is None:
            yield Difference(last + 1, f"missing: {_told(wanted)}")
            continue
        last = found.offset
        if problem := _differ(wanted, found):
            yield Difference(found.offset, problem)
    for found in now:
        yield Difference(found.offset, f"not from the archive: {_told(found)}")


def _differ(then: Record, now: Record) -> str | None:
    if (then.timestamp, then.body) == (now.timestamp, now.body):
        return None
    if then.timestamp != now.timestamp:
        return f"its time is {now.timestamp}, archived was {then.timestamp}"
    old, new = fields(then.body), fields(now.body)
    other = [name for name in old._fields if getattr(old, name) != getattr(new, name)]
    return f"another {' and '.join(other)}: archived was {_told(then)}, found {_told(now)}"


def fold(records: Iterator[Record]) -> dict[bytes, bytes]:
    """What is left of the records of a compacted topic: the newest of each key, without deleted."""
    state: dict[bytes, bytes] = {}
    for record in records:
        of = fields(record.body)
        if of.key is None:
            continue
        if of.value is TOMBSTONE:
            state.pop(of.key, None)
        else:
            state[of.key] = record.body
    return state


def _told(record: Record) -> str:
    of = fields(record.body)
    size = "a tombstone" if of.value is None else f"{len(of.value)} bytes"
    return f"key {of.key!r}, {size}, {len(of.headers)} headers at {record.offset}"
