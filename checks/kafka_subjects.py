"""What the checks of Kafka examine: topic archives, offsets of groups, brokers, replayed topics."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from checks import kafka_reading
from checks.hanging import Hanging, hanging
from checks.kafka_replays import Comparison, compared
from fixtures.kafka_state import kafka_state
from pipeline.config import PipelineConfig
from pipeline.errors import BackupError, PipelineError, StoreError
from pipeline.kafka.archive import archive, exports
from pipeline.kafka.archive.reading import Archived, digests, read_index
from pipeline.kafka.archive.segments import Index
from pipeline.kafka.cluster.raw import RawReader
from pipeline.kafka.cluster.topics import Extent, Topic, describe, extents
from pipeline.kafka.groups import groups
from pipeline.kafka.replay import target_topic
from pipeline.repository.journal import FOLDER
from pipeline.repository.kinds import EVIDENCE, newest
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore


@dataclass(frozen=True)
class KafkaBackups:
    """The repository's sets of topics and of committed offsets, over all runs."""

    live: ClassVar[bool] = False
    kafka: ClassVar[bool] = True
    path: Path

    @classmethod
    def of(cls, config: PipelineConfig) -> Self:
        return cls(config.repository.path)

    @property
    def sets(self) -> Repository:
        return Repository(FolderStore(self.path))


@dataclass(frozen=True)
class TopicArchive:
    """The newest archive of topics, every byte of it.

    `notes` is a folder where workers of a session share what one of them read.
    """

    live: ClassVar[bool] = False
    kafka: ClassVar[bool] = True
    backup: BackupSet
    notes: Path | None = None

    @classmethod
    def of(cls, config: PipelineConfig) -> Self:
        return cls(newest(KafkaBackups.of(config).sets, archive.KIND))

    def shared_in(self, notes: Path) -> Self:
        """The same archive, read once over all workers."""
        return replace(self, notes=notes)

    @property
    def facts(self) -> dict[str, Any]:
        return self.backup.manifest.facts

    @property
    def topics(self) -> dict[str, dict[str, Any]]:
        told: dict[str, dict[str, Any]] = self.facts.get("topics", {})
        return told

    def places(self) -> Iterator[tuple[str, str, int]]:
        """Each partition of the manifest: how it is named, its topic and its number."""
        for topic, told in self.topics.items():
            for partition in told["partitions"]:
                yield f"{topic}[{partition}]", topic, int(partition)

    @cached_property
    def opened(self) -> dict[str, Index | PipelineError]:
        """The index of each partition, or why it is not the one that the manifest means."""
        listed = digests(self.backup)
        found: dict[str, Index | PipelineError] = {}
        for where, topic, partition in self.places():
            try:
                found[where] = read_index(self.backup, topic, partition, listed)
            except (BackupError, StoreError) as error:
                found[where] = error
        return found

    @cached_property
    def indexes(self) -> dict[str, Index]:
        """Those that could be opened; `kafka.index-as-manifest` names the others."""
        return {where: each for where, each in self.opened.items() if isinstance(each, Index)}

    @cached_property
    def found(self) -> kafka_reading.Found:
        """What its bytes are, read once."""
        if self.notes is None:
            return kafka_reading.read(self.backup, self.indexes)
        return kafka_reading.read_once(self.backup, self.indexes, self.notes)

    def partition(self, where: str) -> Archived:
        """A partition to read records of."""
        return Archived(self.indexes[where], self.backup.store)


@dataclass(frozen=True)
class OffsetsBackup:
    """The backup of groups that belongs to the newest topic archive: the last one before it."""

    live: ClassVar[bool] = False
    kafka: ClassVar[bool] = True
    archive: TopicArchive
    labels: tuple[str, ...]
    backup: BackupSet | None

    @classmethod
    def of(cls, config: PipelineConfig) -> Self:
        sets, topics = KafkaBackups.of(config).sets, TopicArchive.of(config)
        labels = sets.labels(groups.KIND)
        before = (
            backup
            for backup in map(sets.get, reversed(labels))
            if backup.manifest.finished <= topics.backup.manifest.finished
            and not backup.manifest.facts.get(EVIDENCE)
        )
        return cls(topics, tuple(labels), next(before, None))

    @property
    def chosen(self) -> BackupSet:
        """The backup; BackupError where none is older than the archive."""
        if self.backup is None:
            raise BackupError(f"no backup of offsets is older than {self.archive.backup.label}")
        return self.backup

    @property
    def groups(self) -> tuple[groups.Group, ...]:
        """The groups that it holds; RestoreError where its bytes are not what was committed."""
        return groups.read(self.chosen)


@dataclass(frozen=True)
class LiveTopics:
    """The running brokers, beside the newest archive of topics and its backup of groups."""

    live: ClassVar[bool] = True
    kafka: ClassVar[bool] = True
    config: PipelineConfig
    archive: TopicArchive
    offsets: OffsetsBackup

    state = staticmethod(kafka_state)

    @classmethod
    def of(cls, config: PipelineConfig) -> Self:
        return cls(config, TopicArchive.of(config), OffsetsBackup.of(config))

    @cached_property
    def topics(self) -> dict[str, Topic]:
        """Every topic that is there now, by name."""
        return {topic.name: topic for topic in describe(self.config.kafka)}

    def archived_topics(self) -> Iterator[tuple[str, Topic]]:
        """Those of the archive that are there."""
        there = self.topics
        return ((name, there[name]) for name in self.archive.topics if name in there)

    @cached_property
    def brokers(self) -> int:
        return target_topic.brokers(self.config.kafka)

    @cached_property
    def permissions(self) -> dict[str, Any]:
        """ACLs, quotas and users, asked for as the archiver does."""
        with RawReader(self.config.kafka) as reader:
            return exports.everything(reader)

    @cached_property
    def _extents(self) -> dict[tuple[str, int], Extent]:
        places = [place for _, topic in self.archived_topics() for place in topic.places]
        told = extents(self.config.kafka, places)
        return {(place.topic, place.partition): extent for place, extent in told.items()}

    def extent(self, topic: str, partition: int) -> Extent | None:
        """Where a partition's log stands; None where it is not there."""
        return self._extents.get((topic, partition))

    def hanging(self, topic: str, partition: int) -> list[Hanging]:
        """Open transactions there that nobody will end."""
        place = next(each for each in self.topics[topic].places if each.partition == partition)
        with RawReader(self.config.kafka) as reader:
            return hanging(reader, place)

    @cached_property
    def groups(self) -> dict[str, groups.Group]:
        """Every group with its committed offsets, as its coordinator knows it now."""
        return {group.name: group for group in groups.committed(self.config.kafka)}


@dataclass(frozen=True)
class ReplayedTopic:
    """Topics that replays of this repository brought back, beside what they were brought from."""

    live: ClassVar[bool] = True
    kafka: ClassVar[bool] = True
    replayed: ClassVar[bool] = True
    config: PipelineConfig

    state = staticmethod(kafka_state)

    @classmethod
    def of(cls, config: PipelineConfig) -> Self:
        return cls(config)

    @property
    def folder(self) -> Path:
        return self.config.repository.path / FOLDER

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """The finished replays into each topic that is still there."""
        return list(compared(self.config))
