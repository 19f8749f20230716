"""Whether schemas may be brought back into a registry, and whether all of them came back."""

from collections.abc import Iterator, Mapping

from pipeline.cdc import registry_probe, schemas
from pipeline.config import PipelineConfig
from pipeline.errors import RecoveryRefused
from pipeline.registry.schemas import (
    Inventory,
    collisions,
    differences,
    schemas_changed,
    unusable,
)
from pipeline.repository.sets import BackupSet

NAMED = 10
"""Contradictions that are named; the others are counted."""


def older(backup: BackupSet) -> Iterator[str]:
    """Name the older set that knew what the registry had lost when this one was taken."""
    if told := backup.manifest.facts.get("differs"):
        yield f"MORE IN AN OLDER SET  {_some(told)}: --from {backup.manifest.facts['differs_from']}"


def refuse_one_that_lost(backup: BackupSet) -> None:
    """Refuse a backup of a registry that was wrong already: it must be meant, by its label."""
    facts = backup.manifest.facts
    if told := facts.get("differs"):
        raise RecoveryRefused(
            f"when {backup.label} was taken the registry was not as in {facts['differs_from']}: "
            f"{_some(told)}. Say which of both is meant by --from"
        )


def refuse_what_stands_there(then: Inventory, there: Inventory, *, merge: bool) -> list[str]:
    """Say what differs, where it may be put right over what the registry holds."""
    told = [f"{subject}: {problem}" for subject, problem in differences(then, there)]
    if not told:
        raise RecoveryRefused("nothing is wrong with the registry: it is not replaced")
    if not any(schemas_changed(then, there)):
        return told  # settings are put back, and nothing is imported
    refuse_what_contradicts(then, there)
    if there.schemas and not merge:
        raise RecoveryRefused(
            f"the registry holds {len(there.schemas)} versions of {len(there.subjects)} "
            "subjects, and nothing that contradicts the backup: say --merge to add to it"
        )
    return told


def refuse_what_contradicts(then: Inventory, there: Inventory) -> None:
    """Refuse where one id would stand for two schemas, or one schema under two ids."""
    if against := list(collisions(then, there)):
        raise RecoveryRefused(
            f"{len(against)} things contradict the backup, and nothing was written. Who "
            "registered again has records under these ids: keep the registry's topic, empty "
            f"it, and recover; then have them register again. {'; '.join(against[:NAMED])}"
        )


def different(config: PipelineConfig, backup: BackupSet) -> list[str]:
    """Say what of the running registry is not as it was backed up."""
    there, _ = schemas.live(config)
    found = differences(schemas.inventory_of(backup), there)
    return [f"{subject}: {problem}" for subject, problem in found]


def carried(backup: BackupSet) -> set[int]:
    """Ids that archived records carried when the set was taken."""
    every = backup.manifest.facts["carried"].values()
    return {number for numbers in every for number in numbers}


def wrong(config: PipelineConfig, backup: BackupSet, recovery: str) -> list[str]:
    """Say what keeps a registry from being what it was: versions, ids in records, new ids."""
    told = different(config, backup)
    then, (now, _) = schemas.inventory_of(backup), schemas.live(config)
    ids = carried(backup)
    if unknown := sorted(ids - now.by_id.keys()):
        told.append(f"records carry ids that it does not know: {unknown[:NAMED]}")
    broken = {one.named for one in then.schemas if unusable(one, then.named)}
    told += [
        f"{one}: {problem}"
        for one in now.schemas
        if (problem := unusable(one, now.named)) and one.named not in broken
    ]
    highest = max([then.highest, *ids])
    return told + list(registry_probe.problems(config, recovery, highest))


def _some(told: Mapping[str, str]) -> str:
    named = [f"{name}: {why}" for name, why in told.items()]
    return "; ".join(named[:3]) + (f"; and {len(named) - 3} more" if len(named) > 3 else "")
