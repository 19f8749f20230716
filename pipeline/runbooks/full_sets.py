"""Which sets a recovery of everything takes: of each kind the newest that will do.

Nothing older is taken in silence where it holds less: an archive that is damaged, or not whole, is
refused by name, and passed over when the operator says so. A set of the registry from before it had
lost something is the exception: it holds more.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.cdc import schemas
from pipeline.errors import NoBackup
from pipeline.kafka.archive import proof
from pipeline.kafka.groups import groups
from pipeline.repository.kinds import CLUSTER, INCOMPLETE, OFFSETS, SCHEMAS, TOPICS, newest
from pipeline.repository.sets import BackupSet, Repository

NO_OFFSETS = "no backup of them is left: none comes back"
MAY_BE_LEFT = (TOPICS.name, OFFSETS.name)
"""Kinds of which an operator may pass over a set; the gate reads the newest of the registry."""


@dataclass(frozen=True)
class Sources:
    """The sets, and in words which newer ones are passed over. None where there was no backup."""

    archive: BackupSet
    registry: BackupSet | None
    offsets: BackupSet | None
    passed: Sequence[str] = ()
    later: BackupSet | None = None
    """The newest set of the registry, where it had lost something by then."""

    def labels(self) -> dict[str, str | None]:
        """What a journal keeps: what is newer tomorrow does not change a recovery."""
        return {
            "topics": self.archive.label,
            "schemas": self.registry.label if self.registry else None,
            "offsets": self.offsets.label if self.offsets else None,
        }

    def lines(self) -> Iterator[str]:
        """Say what is taken beside the topics, and what is not."""
        if self.registry is not None:
            yield f"registry          {self.registry.label}"
        yield f"groups            {self.offsets.label if self.offsets else NO_OFFSETS}"
        for told in groups.left_out(self.offsets) if self.offsets else ():
            yield f"  NOT WHOLE       {told}"
        for told in self.passed:
            yield f"  PASSED OVER     {told.removeprefix('passed over ')}"

    def unsound_archive(self) -> Iterator[str]:
        """Read every archived record; of the registry's own topic too, where its set has it."""
        for backup in (self.archive, *([self.registry] if self.registry else [])):
            for name, why in backup.manifest.facts.get(INCOMPLETE, {}).items():
                yield f"{backup.label} does not hold {name} whole: {why}"
            for seen in proof.walk(backup, schemas.BESIDE):
                if seen.problem:
                    yield f"{backup.label} is damaged: {seen.subject}: {seen.problem}"

    def unsound_registry(self) -> Iterator[str]:
        """The gate holds records against what the set knows: that is to be read, and enough."""
        if (taken := self.registry) is None:
            return
        schemas.inventory_of(taken)
        facts = taken.manifest.facts
        if told := ", ".join(facts.get("differs", ())):
            yield (
                f"when {taken.label} was taken the registry had lost or changed {told}, and "
                f"{facts['differs_from']}, which knew it, is gone"
            )
        if self.later is not None:
            yield from schemas.lacking(taken, self.later)

    def unsound_offsets(self) -> Iterator[str]:
        """Read the offsets of groups, which are committed long after the fence."""
        if self.offsets is not None:
            groups.read(self.offsets)
        yield from ()


def choose(repository: Repository, without: Collection[str] = ()) -> Sources:
    """Take the newest that will do, but none of `without`.

    Offsets count in the records of one cluster: only those of the archive's own are taken. Raises
    NoBackup without an archive of topics.
    """
    passed = list[str]()
    archive = newest(repository, TOPICS.name, without=without, say=passed.append)
    cluster = archive.manifest.facts.get(CLUSTER)
    origin = {CLUSTER: str(cluster)} if cluster is not None else {}
    offsets = None
    try:
        offsets = newest(
            repository, OFFSETS.name, without=without, origin=lambda: origin, say=passed.append
        )
    except NoBackup as error:
        passed += error.passed
    registry, later = schemas.sound(repository), None
    if registry is not None:
        last = newest(repository, SCHEMAS.name)
        if last.label != registry.label:
            later, lost = last, ", ".join(last.manifest.facts.get("differs", ()))
            passed.append(f"{last.label}: the registry had lost or changed {lost}")
        registry = registry if registry.manifest.facts.get("storage") else None
    return Sources(archive, registry, offsets, passed, later)


def begun(repository: Repository, told: dict[str, Any]) -> Sources:
    """Give the sets that a recovery which was begun has written down."""
    kept = {name: told.get(name) for name in (SCHEMAS.name, OFFSETS.name)}
    others = {name: repository.get(label) if label else None for name, label in kept.items()}
    archive = repository.get(told[TOPICS.name])
    return Sources(archive, others[SCHEMAS.name], others[OFFSETS.name])
