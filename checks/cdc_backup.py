"""What checks examine of backed up CDC state: the newest set, as it is, whole or not."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

from pipeline.cdc.state import kept
from pipeline.cdc.state.reading import Reading
from pipeline.config import CdcConfig, PipelineConfig
from pipeline.errors import NoBackup
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore, read


@dataclass(frozen=True)
class CdcBackup:
    """The newest set of slots, publications, connectors and offsets."""

    live: ClassVar[bool] = False
    of_cdc: ClassVar[bool] = True
    backup: BackupSet
    asked: CdcConfig

    @classmethod
    def of(cls, config: PipelineConfig) -> Self:
        repository = Repository(FolderStore(config.repository.path))
        labels = repository.labels(kept.KIND)
        if not labels:
            what = "backup of slots; take one: pipeline backup cdc"
            raise NoBackup(what, repository.store.where)
        return cls(repository.get(labels[-1]), config.cdc)

    @cached_property
    def reading(self) -> Reading:
        return kept.read(self.backup)

    @cached_property
    def told(self) -> dict[str, Any]:
        """The same as it is written, where a field that is missing is not there."""
        content = read(self.backup.store, f"{self.backup.prefix}{kept.OBJECT}")
        found: dict[str, Any] = json.loads(content)
        return found
