"""The schema registry backed up: what it tells, the topic that it keeps its state in, and which of
its ids archived records carry. A topic without the schemas of its records is bytes.
"""  # noqa: D205 - one sentence that does not fit into a line

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pipeline.cdc import framed
from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError, NoBackup, RestoreError, ServerError
from pipeline.kafka.archive import archive
from pipeline.kafka.cluster.topics import Topic, cluster_id, describe, extents, listed
from pipeline.registry import apicurio
from pipeline.registry.client import RegistryClient
from pipeline.registry.schemas import Inventory, as_json, of_json, schemas_changed
from pipeline.repository import kinds
from pipeline.repository.sets import BackupSet, Draft, Repository
from pipeline.repository.store import FolderStore, HashedStream, StoredObject, read
from pipeline.rest import PATIENCE

KIND = kinds.SCHEMAS.name
REGISTRY, EXPORT, IDS = "registry.json", "export.zip", "ids.json"
BESIDE = (REGISTRY, EXPORT, IDS)
"""Objects of a set that are no part of the archived storage topic."""
STORAGE = (apicurio.JOURNAL, "_schemas")
NAMED = 20
"""Differences from the set before that a manifest names; the others are counted."""
ROUNDS = 5
"""How often the registry is read until nothing was registered meanwhile."""


@dataclass(frozen=True)
class Known:
    """What the newest backup knew: the registry, and which ids the records of topics carry."""

    label: str
    inventory: Inventory
    carried: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class _Read:
    """The registry at one moment; `end` is where its storage topic ended then."""

    inventory: Inventory
    export: bytes | None
    end: int | None


def take(
    config: PipelineConfig,
    repository: Repository,
    progress: Callable[[str], None] = lambda _: None,
    *,
    topics: BackupSet | None = None,
    evidence: str | None = None,
    patience: timedelta = PATIENCE,
    accept: bool = False,
) -> BackupSet:
    """Back up the registry, with its storage topic where the brokers have it.

    Ids are collected from the records of the archive `topics`, else of the newest one. `evidence`
    names the recovery that salvages it: such a set is no backup. With `accept` what the set before
    knew and the registry has no more was removed on purpose.

    Raises ConfigError where no registry is configured, ServerError where it does not answer.
    """
    if not config.registry.url:
        raise ConfigError("there is no registry to back up: registry.url is empty")
    storage = storage_topic(config)
    found = _settled(config, storage, patience)
    newest = topics or _newest(repository, archive.KIND)
    ids, noted = framed.of_archive(newest, _before(repository)) if newest else ({}, {})
    facts = _facts(found, storage, newest, ids)
    facts |= _held_against(repository, found.inventory, accept=accept)
    facts |= {} if evidence is None else {kinds.EVIDENCE: evidence}
    objects = {REGISTRY: as_json(found.inventory), IDS: json.dumps(noted).encode()}
    if found.export is not None:
        objects[EXPORT] = found.export

    def beside(draft: Draft) -> tuple[Mapping[str, Any], Sequence[StoredObject]]:
        progress(f"{draft.label}: {_told(found.inventory)}")
        return facts, [draft.put(name, [content]) for name, content in objects.items()]

    if storage is None:
        progress("no storage topic of the registry on these brokers: its schemas only")
        with repository.begin(KIND) as draft:
            told, stored = beside(draft)
            cluster = {"cluster_id": cluster_id(config.kafka), "topics": {}}
            return draft.commit({**cluster, **told}, stored)
    return archive.take(
        config, repository, [storage.name], progress, kind=KIND, evidence=evidence, beside=beside
    )


def storage_topic(config: PipelineConfig) -> Topic | None:
    """Describe the topic that the registry keeps its state in; None where there is none."""
    there = listed(config.kafka).topics
    wanted = config.registry.storage_topic
    if wanted is not None and wanted not in there:
        raise ServerError(f"registry.storage_topic {wanted!r} is not on these brokers")
    name = wanted or next((each for each in STORAGE if each in there), None)
    return describe(config.kafka, [name])[0] if name else None


def live(config: PipelineConfig, patience: timedelta = PATIENCE) -> tuple[Inventory, bytes | None]:
    """Read the registry as it is now, with its own export where it has one."""
    with RegistryClient(config.registry, patience) as client:
        return client.everything()


def known(config: PipelineConfig) -> Known | None:
    """What the newest backup of a sound registry tells; None where there is none."""
    newest = sound(Repository(FolderStore(config.repository.path)))
    if newest is None:
        return None
    return Known(newest.label, inventory_of(newest), newest.manifest.facts.get("carried", {}))


def sound(repository: Repository) -> BackupSet | None:
    """The newest set, unless the registry had lost something by then: the one that knew it.

    What is lost does not become right by being backed up.
    """
    newest = _newest(repository, KIND)
    while newest is not None and newest.manifest.facts.get("differs"):
        try:
            newest = repository.get(newest.manifest.facts["differs_from"])
        except NoBackup:  # retention let it go, and this one has stood for it since
            break
    return newest


def lacking(backup: BackupSet, later: BackupSet) -> Iterator[str]:
    """Name the ids that records carried when `later` was taken, and the set does not know."""
    known = inventory_of(backup).by_id
    for topic, ids in later.manifest.facts.get("carried", {}).items():
        if gone := ", ".join(str(number) for number in ids if number not in known):
            told = f"{later.label} knows them, {backup.label} does not"
            yield f"records of {topic} have ids {gone}: {told}"


def inventory_of(backup: BackupSet) -> Inventory:
    """The registry as the set knows it. Raises RestoreError unless that is what was committed."""
    try:
        return of_json(content(backup, REGISTRY))
    except (ValueError, KeyError, TypeError) as error:
        raise RestoreError(f"{backup.label}: {REGISTRY}: {error}") from error


def content(backup: BackupSet, name: str) -> bytes:
    """One object of the set. Raises RestoreError unless it is what was committed."""
    if backup.kind != KIND:
        raise RestoreError(f"{backup.label}: expected a backup of {KIND}, found {backup.kind}")
    entry = next((e for e in backup.manifest.objects if e.key == backup.prefix + name), None)
    if entry is None:
        raise RestoreError(f"{backup.label} holds no {name}")
    with backup.store.open(entry.key) as stored:
        hashed = HashedStream(stored)
        held = hashed.read()
        if problem := hashed.damage(entry):
            raise RestoreError(f"{backup.label}: {problem}")
    return held


def _settled(config: PipelineConfig, storage: Topic | None, patience: timedelta) -> _Read:
    """Read it between two looks at its storage topic that tell the same end."""
    for _ in range(ROUNDS):
        before = end_of(config, storage)
        inventory, export = live(config, patience)
        if end_of(config, storage) == before:
            return _Read(inventory, export, before)
    raise ServerError(
        f"{config.registry.url}: something is registered all the while: read {ROUNDS} times"
    )


def end_of(config: PipelineConfig, storage: Topic | None) -> int | None:
    """Where a storage topic ends; all its partitions together, of which there should be one."""
    if storage is None:
        return None
    return sum(found.high_watermark for found in extents(config.kafka, storage.places).values())


def _held_against(repository: Repository, inventory: Inventory, *, accept: bool) -> dict[str, Any]:
    """Note which schemas the last sound set knew, and the registry has lost or changed."""
    before = sound(repository)
    if before is None:
        return {}
    told = list(schemas_changed(inventory_of(before), inventory))
    named = dict(told[:NAMED]) | ({"and": f"{len(told) - NAMED} more"} if told[NAMED:] else {})
    return {("accepted" if accept else "differs"): named, "differs_from": before.label}


def _facts(
    found: _Read, storage: Topic | None, newest: BackupSet | None, ids: framed.Topics
) -> dict[str, Any]:
    carried: dict[str, set[int]] = {}
    for topic, _, seen in framed.carried(ids, found.inventory):
        carried.setdefault(topic, set()).update(n for n in seen.ids if n in found.inventory.by_id)
    return {
        "scope": None,
        **found.inventory.facts(),
        "fingerprint": hashlib.sha256(as_json(found.inventory)).hexdigest(),
        "storage": storage.name if storage else None,
        "storage_end": found.end,
        "ids_of": newest.label if newest else None,
        "carried": {topic: sorted(numbers) for topic, numbers in sorted(carried.items())},
        "unresolved": framed.unresolved(ids, found.inventory),
    }


def _told(inventory: Inventory) -> str:
    return (
        f"{inventory.registry} {inventory.version}: {len(inventory.subjects)} subjects, "
        f"{len(inventory.schemas)} versions, ids up to {inventory.highest}; not told by it: "
        f"{', '.join(inventory.lacks)}"
    )


def _newest(repository: Repository, kind: str) -> BackupSet | None:
    try:
        return kinds.newest(repository, kind)
    except NoBackup:
        return None


def _before(repository: Repository) -> dict[str, Any]:
    """What the newest set read of archived segments; nothing where it cannot be read."""
    newest = _newest(repository, KIND)
    if newest is None:
        return {}
    found: dict[str, Any] = json.loads(read(newest.store, newest.prefix + IDS))
    return found
