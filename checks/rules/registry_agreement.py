"""Two accounts of one registry: what it answered, and what it keeps."""

from collections.abc import Iterator
from random import Random
from typing import Any

from checks import schemas_topic
from checks.check import Observation, check
from checks.kafka_records import fields, seen
from checks.registry_subjects import SchemaBackup
from checks.schemas_topic import Entry, Fold
from fixtures.faults import registries
from fixtures.registry_material import KEPT, RegistryStory
from fixtures.scratch import Damage, Scratch
from pipeline.cdc import schemas
from pipeline.kafka.archive.reading import archived
from pipeline.registry import apicurio
from pipeline.registry.schemas import Inventory, RegisteredSchema, differences

Copy = Scratch[SchemaBackup]


@check(
    "registry.answers-as-it-keeps",
    on=SchemaBackup,
    severity="blocker",
    advice="The registry answers one thing and keeps another, which it will answer from its next "
    "start on. Take a new backup; where that is red too, do not restart it before you know which "
    "of both the records need.",
)
def answers_as_it_keeps(subject: SchemaBackup) -> Iterator[Observation]:
    """What the registry answered at its backup is what its own export, or its topic, holds."""
    facts = subject.facts
    if facts["storage"] == schemas_topic.TOPIC:
        yield from _as_its_topic(subject.inventory, _folded(subject))
    elif any(one.key.endswith(schemas.EXPORT) for one in subject.backup.manifest.objects):
        then = subject.inventory
        system = then.registry, then.version
        export = schemas.content(subject.backup, schemas.EXPORT)
        kept = apicurio.inventory(export, system, then.settings, then.mode)
        told = dict(differences(kept, then))
        for one in kept.schemas:
            yield Observation(str(one), told.pop(str(one), None))
        yield from (Observation(name, why) for name, why in told.items())


def _folded(subject: SchemaBackup) -> Fold:
    """Its topic as we read it: `checks/schemas_topic.py` says how."""
    found = Fold()
    for partition in archived(subject.backup, [schemas_topic.TOPIC]):
        for record in seen(partition):
            found.take(Entry(record.offset, *fields(record.body)[:2]))
    return found


def _as_its_topic(told: Inventory, kept: Fold) -> Iterator[Observation]:
    for named, one in sorted(kept.schemas.items()):
        yield Observation(str(one), _differs(one, told.named.get(named)))
    for named, extra in told.named.items():
        if named not in kept.schemas:
            yield Observation(str(extra), "it was answered, and the topic does not hold it")
    for subject, version in kept.rising():
        name = f"{subject} version {version}"
        yield Observation(name, "it is deleted, and rises at a cold start: its key has two forms")
    for offset, problem in kept.problems:
        yield Observation(f"{schemas_topic.TOPIC}[0]@{offset}", problem)
    for collision in kept.collisions():
        yield Observation(schemas_topic.TOPIC, collision)


def _differs(kept: RegisteredSchema, found: RegisteredSchema | None) -> str | None:
    if found is None:
        return "the topic holds it, and it was not answered"
    if found.id != kept.id:
        return f"it was answered with id {found.id}, the topic has {kept.id}"
    if found.deleted != kept.deleted:
        return f"deleted was answered as {found.deleted}, the topic has {kept.deleted}"
    same = found.schema is None or found.fingerprint == kept.fingerprint
    return None if same else "it was answered as another schema than the topic has"


@answers_as_it_keeps.detects
def answered_with_another_id(scratch: Copy, rng: Random) -> Damage:
    """A cache in between answered with the ids of another registry."""
    story = RegistryStory(scratch.config, KEPT)

    def change(body: dict[str, Any]) -> None:
        one = next(each for each in body["schemas"] if each["subject"] == story.gone)
        one["id"] += rng.randrange(1_000, 2_000)

    registries.edit(scratch, change)
    return Damage(f"{story.gone} version 1", "it was answered with another id", says="its id is")


@answers_as_it_keeps.detects
def version_not_answered(scratch: Copy, _rng: Random) -> Damage:
    """A list of subjects was cut: registries answer with no more than some number of them."""
    story = RegistryStory(scratch.config, KEPT)

    def change(body: dict[str, Any]) -> None:
        body["schemas"] = [e for e in body["schemas"] if e["subject"] != story.baskets]

    registries.edit(scratch, change)
    return Damage(f"{story.baskets} version 1", "it was not answered", says="it is gone")
