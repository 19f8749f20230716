"""A repository in which days have passed, and a store whose user dies while it lets go."""

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.config import PipelineConfig, PlanConfig, RepositoryConfig
from pipeline.keeping.retention import Decision, carry_out, decide
from pipeline.postgres.base import chain
from pipeline.postgres.wal.lsn import SEGMENT_SIZE, Lsn, segment_name
from pipeline.repository.sets import BackupSet, Manifest, Repository
from pipeline.repository.store import FolderStore

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)
DAY = timedelta(days=1)


class Killed(RuntimeError):
    """Stands for kill -9."""


class Mortal(FolderStore):
    """A store whose user dies after a number of deletions."""

    def __init__(self, root: Path, deletions: int) -> None:
        super().__init__(root)
        self._left = deletions

    def delete(self, key: str) -> None:
        if self._left == 0:
            raise Killed
        self._left -= 1
        super().delete(key)


@dataclass(frozen=True)
class Archive:
    """A repository in which one segment of WAL is written every day."""

    root: Path
    plan: PlanConfig = field(default_factory=PlanConfig)

    @property
    def config(self) -> PipelineConfig:
        return PipelineConfig(repository=RepositoryConfig(path=self.root), plan=self.plan)

    @property
    def repository(self) -> Repository:
        return Repository(FolderStore(self.root))

    def take(
        self,
        age: int,
        kind: str = "base",
        timeline: int = 1,
        on: BackupSet | None = None,
        **facts: Any,  # noqa: ANN401 - JSON values
    ) -> BackupSet:
        """Commit a set that finished `age` days ago, of two objects; `on` is its parent."""
        at, start = NOW - age * DAY, position(age)
        label = self.repository.new_label(kind, at - timedelta(hours=1))
        prefix = f"sets/{kind}/{label}/"
        objects = [self.repository.store.put(prefix + name, [b"x"]) for name in ("a", "b")]
        known: dict[str, object] = {
            "system_identifier": "7",
            "timeline": timeline,
            "start_lsn": str(start),
            "end_lsn": str(start + 64),
            "end_time": at.isoformat(),
            "wal_segment_size": SEGMENT_SIZE,
        } | ({} if on is None else {chain.PARENT: chain.as_fact(on)})
        return self.repository.commit(
            Manifest(
                kind=kind,
                label=label,
                started=at - timedelta(hours=1),
                finished=at,
                made_by="test",
                facts=known | facts,
                objects=tuple(objects),
            )
        )

    def archive(self, age: int, folder: str = "wal", timeline: int = 1, tail: str = "") -> str:
        """Write the segment of a day, as old as that day; return its name."""
        name = segment_name(timeline, position(age)) + tail
        return self.file(f"{folder}/{name}", age)

    def file(self, key: str, age: int, text: str = "") -> str:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (moment := (NOW - age * DAY).timestamp(), moment))
        return path.name

    def wal(self) -> set[str]:
        return {path.name for path in self.root.glob("wal/*")}

    def retain(self, deletions: int = -1) -> Decision:
        decision = decide(self.config, NOW)
        carry_out(Mortal(self.root, deletions), decision)
        return decision


def position(age: int) -> Lsn:
    """Where the WAL stood that many days ago, a little into the segment of that day."""
    return Lsn((1000 - age) * SEGMENT_SIZE + 40)
