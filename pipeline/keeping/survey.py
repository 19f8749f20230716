"""What lies in a repository, and what each object of it must be. Only manifests are read here."""

import os
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pipeline.errors import BackupError, ObjectMissing
from pipeline.keeping.readings import Reading, Readings
from pipeline.postgres.wal.lsn import is_segment
from pipeline.repository.sets import MANIFEST, Repository, folder_of
from pipeline.repository.store import FolderStore, StoredObject

_WAL = ("wal/", "stream/")
_WITHOUT_MANIFEST = (*_WAL, "salvage/")
_GROWING = ".partial"  # below stream/: pg_receivewal's, until the segment is full
_SEGMENT_SIZES = {1 << power for power in range(20, 31)}  # initdb --wal-segsize


@dataclass(frozen=True)
class Subject:
    """An object that can be read, and what it must be; `sha256` is None where nobody knows it."""

    key: str
    size: int
    sha256: str | None
    changed: int


@dataclass(frozen=True)
class Damage:
    """Something that is not what it must be."""

    key: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.key}: expected {self.expected}, found {self.found}"


@dataclass
class Survey:
    """What was found. `unlisted` belongs to no manifest, `gone` was there the last time."""

    sets: int = 0
    subjects: list[Subject] = field(default_factory=list)
    damaged: list[Damage] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all that can be read."""
        return sum(subject.size for subject in self.subjects)


def survey(root: Path, readings: Readings) -> Survey:
    """List the repository, read every manifest, and compare existence and sizes with them."""
    return _Surveyor(root, readings).look()


class _Surveyor:
    def __init__(self, root: Path, readings: Readings) -> None:
        self._repository = Repository(FolderStore(root))
        self._readings = readings
        self._present: dict[str, os.stat_result] = {}
        for key in self._repository.store.list():
            try:
                self._present[key] = (root / key).stat()
            except FileNotFoundError:
                continue  # retention took it, or the receiver gave a segment its name
        self._accounted: set[str] = set()
        self._segment_sizes: set[int] = set()
        self._found = Survey()

    def look(self) -> Survey:
        for label in self._repository.labels():
            self._set(label)
        if not self._segment_sizes:
            self._segment_sizes = self._usual_segment_size()
        for key in sorted(self._present.keys() - self._accounted):
            if key.startswith(_WITHOUT_MANIFEST):
                self._write_once(key)
            elif key.startswith("sets/"):
                self._found.unlisted.append(f"{key}: no manifest lists it")
        for reading in self._readings:
            if reading.key not in self._present and reading.key not in self._accounted:
                self._absent(reading)
        return self._found

    def _set(self, label: str) -> None:
        folder = folder_of(label)
        key = folder + MANIFEST
        try:
            manifest = self._repository.get(label).manifest
        except ObjectMissing:
            return  # retention takes the manifest first
        except BackupError as error:
            self._accounted |= {each for each in self._present if each.startswith(folder)}
            self._found.damaged.append(Damage(key, "a manifest under its seal", str(error)))
            return
        self._found.sets += 1
        self._accounted |= {key, *(entry.key for entry in manifest.objects)}
        if key in self._present:
            self._as_first_read(key)
        for entry in manifest.objects:
            self._listed(entry)
        if size := manifest.facts.get("wal_segment_size"):
            self._segment_sizes.add(int(size))

    def _listed(self, entry: StoredObject) -> None:
        """Compare with the manifest, and the manifest with what it said before."""
        stat, known = self._present.get(entry.key), self._readings.get(entry.key)
        stated = f"{entry.size} bytes as its manifest says"
        if stat is None:
            self._found.damaged.append(Damage(entry.key, stated, "no such object"))
        elif stat.st_size != entry.size:
            self._found.damaged.append(Damage(entry.key, stated, f"{stat.st_size} bytes"))
        elif known is not None and (known.size, known.sha256) != (entry.size, entry.sha256):
            before = f"{known.size} bytes with sha256 {known.sha256}, listed on {known.read}"
            self._found.damaged.append(
                Damage(entry.key, before, f"a manifest that lists {entry.sha256} now")
            )
        else:
            self._read_later(entry.key, entry.sha256)

    def _write_once(self, key: str) -> None:
        """Judge what has no manifest by its name and size, and by its first reading."""
        name, size = Path(key).name, self._present[key].st_size
        if key.startswith("stream/") and name.endswith(_GROWING):
            return
        if is_segment(name) and key.startswith(_WAL) and size not in self._segment_sizes:
            sizes = " or ".join(map(str, sorted(self._segment_sizes)))
            self._found.damaged.append(Damage(key, f"a segment of {sizes} bytes", f"{size} bytes"))
        else:
            self._as_first_read(key)

    def _as_first_read(self, key: str) -> None:
        """Nothing else says what it must be: what the first reading found holds ever after."""
        known, size = self._readings.get(key), self._present[key].st_size
        if known is not None and known.size != size:
            stated = f"{known.size} bytes as on {known.read}"
            self._found.damaged.append(Damage(key, stated, f"{size} bytes"))
        else:
            self._read_later(key, known.sha256 if known else None)

    def _absent(self, reading: Reading) -> None:
        """Tell what retention lets go from what was lost: it takes sets whole and old WAL first."""
        key, name = reading.key, Path(reading.key).name
        if key.startswith("sets/"):
            left = sum(each.startswith(key.removesuffix(MANIFEST)) for each in self._present)
            if name == MANIFEST and left:
                expected = f"the manifest that was read on {reading.read}"
                found = f"none, beside {left} objects of the set"
                self._found.damaged.append(Damage(key, expected, found))
                return
        elif key.startswith(_WAL) and self._leaves_a_hole(name):
            expected = f"{reading.size} bytes as on {reading.read}"
            self._found.damaged.append(Damage(key, expected, "no such file, but older ones"))
            return
        self._found.gone.append(key)

    def _leaves_a_hole(self, name: str) -> bool:
        if name in self._wal:
            return False  # archived and streamed; one of the two is enough
        if not is_segment(name):
            return name.endswith(".history")  # retention keeps all of them
        return any(each < name for each in self._wal if is_segment(each) and each[:8] == name[:8])

    @cached_property
    def _wal(self) -> set[str]:
        return {Path(key).name for key in self._present if key.startswith(_WAL)}

    def _usual_segment_size(self) -> set[int]:
        """Take the size that most segments have, where no base backup states it."""
        named = [key for key in self._present if key.startswith(_WAL)]
        sizes = Counter(
            size
            for key in named
            if is_segment(Path(key).name) and (size := self._present[key].st_size) in _SEGMENT_SIZES
        )
        return {max(sizes, key=sizes.__getitem__)} if sizes else _SEGMENT_SIZES

    def _read_later(self, key: str, sha256: str | None) -> None:
        stat = self._present[key]
        self._found.subjects.append(Subject(key, stat.st_size, sha256, stat.st_ctime_ns))
