"""A repository to verify, night after night, and what a run found in it."""

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from random import Random

from pipeline.keeping.readings import Reading, open_readings
from pipeline.keeping.verify import SHARE, Verification, verify
from pipeline.postgres.wal.lsn import Lsn, segment_name
from pipeline.repository.sets import MANIFEST, BackupSet, Manifest, Repository
from pipeline.repository.store import FolderStore

NOW = datetime(2026, 3, 1, 2, tzinfo=UTC)
DAY = timedelta(days=1)
SEGMENT = 1 << 20
OBJECT = 50_000


@dataclass(frozen=True)
class Kept:
    """A repository of two backup sets with two objects each, and five segments of WAL."""

    root: Path

    @property
    def repository(self) -> Repository:
        return Repository(FolderStore(self.root))

    def commit(self, at: datetime, sizes: tuple[int, ...] = (OBJECT, 20)) -> BackupSet:
        label = self.repository.new_label("base", at)
        objects = tuple(
            self.repository.store.put(f"sets/base/{label}/{name}", [os.urandom(size)])
            for name, size in enumerate(sizes)
        )
        facts = {"wal_segment_size": SEGMENT}
        manifest = Manifest(
            kind="base",
            label=label,
            started=at,
            finished=at,
            made_by="test",
            facts=facts,
            objects=objects,
        )
        return self.repository.commit(manifest)

    def archive(self, number: int, folder: str = "wal") -> str:
        key = f"{folder}/{segment_name(1, Lsn(number * SEGMENT), SEGMENT)}"
        self.repository.store.put(key, [os.urandom(SEGMENT)])
        return key

    def verify(
        self, night: float = 0, *, full: bool = False, share: Fraction = SHARE
    ) -> Verification:
        return verify(self.root, now=NOW + night * DAY, full=full, share=share)

    def first(self) -> str:
        """Key of the first set's first object."""
        (folder, *_) = sorted(self.root.glob("sets/base/*"))
        return (folder / "0").relative_to(self.root).as_posix()

    def manifest(self) -> str:
        return str(Path(self.first()).with_name(MANIFEST))

    def segments(self) -> list[str]:
        return list(self.repository.store.list("wal/"))

    def flip(self, key: str, rng: Random) -> None:
        path = self.root / key
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)

    def forget_that_it_was_written(self, key: str) -> None:
        """Make a change look as bit rot does: the file's times tell nothing."""
        with open_readings(self.root) as readings:
            known = readings.get(key)
            assert known is not None
            readings.add(replace(known, changed=(self.root / key).stat().st_ctime_ns))


def damaged(run: Verification) -> list[str]:
    return [damage.key for damage in run.damaged]


def read(run: Verification) -> list[str]:
    return [reading.key for reading in run.read]


def recorded(kept: Kept) -> set[Reading]:
    with open_readings(kept.root) as readings:
        return set(readings)
