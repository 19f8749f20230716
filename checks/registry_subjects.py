"""What the checks of the registry examine: its newest backup, and the one that runs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from checks.check import NotRun
from fixtures.registry_material import registry_state
from pipeline.cdc import framed, schemas
from pipeline.config import PipelineConfig
from pipeline.errors import NoBackup
from pipeline.kafka.archive import archive
from pipeline.kafka.cluster.topics import Extent, Topic, extents
from pipeline.registry.schemas import Inventory
from pipeline.repository.kinds import newest
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore


def _refuse_none(config: PipelineConfig) -> None:
    if not config.registry.url:
        raise NotRun("registry.url is empty: this pipeline has no schema registry")


@dataclass(frozen=True)
class SchemaBackup:
    """The newest backup of the registry, and the newest archive whose records it must explain."""

    live: ClassVar[bool] = False
    registry: ClassVar[bool] = True
    path: Path

    @classmethod
    def of(cls, config: PipelineConfig) -> Self:
        _refuse_none(config)
        return cls(config.repository.path)

    @property
    def sets(self) -> Repository:
        return Repository(FolderStore(self.path))

    @cached_property
    def backup(self) -> BackupSet:
        return newest(self.sets, schemas.KIND)

    @property
    def facts(self) -> dict[str, Any]:
        return self.backup.manifest.facts

    @cached_property
    def inventory(self) -> Inventory:
        return schemas.inventory_of(self.backup)

    @cached_property
    def archived(self) -> framed.Topics:
        """Which ids the records of the newest archive carry, read from its bytes; none without."""
        try:
            found = newest(self.sets, archive.KIND)
        except NoBackup:
            return {}
        return framed.of_archive(found, {})[0]


@dataclass(frozen=True)
class Registry:
    """The running registry, beside its newest backup; it is only asked."""

    live: ClassVar[bool] = True
    registry: ClassVar[bool] = True
    config: PipelineConfig
    backup: SchemaBackup

    state = staticmethod(registry_state)

    @classmethod
    def of(cls, config: PipelineConfig) -> Self:
        return cls(config, SchemaBackup.of(config))

    @cached_property
    def now(self) -> Inventory:
        return schemas.live(self.config)[0]

    @cached_property
    def storage(self) -> Topic:
        """The topic that it keeps its state in."""
        found = schemas.storage_topic(self.config)
        if found is None:
            raise NotRun("the registry keeps its state in no topic of these brokers")
        return found

    @cached_property
    def extents(self) -> Mapping[int, Extent]:
        """Where the partitions of its storage topic stand."""
        told = extents(self.config.kafka, self.storage.places)
        return {place.partition: extent for place, extent in told.items()}

    def archived_extents(self) -> Iterator[tuple[int, int, int]]:
        """Partitions of the storage topic as the backup knew them: number, log start, end."""
        told = self.backup.facts["topics"].get(self.storage.name, {"partitions": {}})
        for number, found in told["partitions"].items():
            yield int(number), found["log_start"], found["end"]
