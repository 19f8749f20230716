"""The newest backup of the schema registry: whole, usable, and enough for the archived records."""

from collections.abc import Iterator
from datetime import timedelta
from random import Random
from typing import Any

from checks.check import Observation, check
from checks.recency import recent
from checks.registry_subjects import SchemaBackup
from fixtures.faults import files, registries
from fixtures.faults.kafka_archive import newest, reseal
from fixtures.registry_material import KEPT, RegistryStory
from fixtures.scratch import Damage, Scratch
from pipeline.cdc import framed, schemas
from pipeline.kafka.archive import proof
from pipeline.registry.schemas import unusable

PLANNED = timedelta(hours=26)
Copy = Scratch[SchemaBackup]


def _story(scratch: Copy) -> RegistryStory:
    return RegistryStory(scratch.config, KEPT)


@check(
    "registry.backup-is-recent",
    on=SchemaBackup,
    severity="blocker",
    advice="Look at the log of the last job, then run `pipeline backup schemas`: what was "
    "registered since is in no backup, and records need it.",
)
def backup_is_recent(subject: SchemaBackup) -> Iterator[Observation]:
    """The newest backup of the registry is as recent as planned."""
    yield from recent(subject.sets, schemas.KIND, PLANNED)


def _age(scratch: Copy, by: timedelta) -> Damage:
    backup = newest(scratch, schemas.KIND)
    manifest = backup.manifest
    reseal(scratch, backup, started=manifest.started - by, finished=manifest.finished - by)
    return Damage(schemas.KIND, f"its set became {by} older")


@backup_is_recent.detects
def schemas_of_two_days_ago(scratch: Copy, rng: Random) -> Damage:
    """The daily job did not run."""
    return _age(scratch, timedelta(hours=27 + rng.randrange(99))).told_as(" old, planned are")


@backup_is_recent.detects
def schemas_from_the_future(scratch: Copy, rng: Random) -> Damage:
    """A clock was wrong: this set stays the newest for ever."""
    return _age(scratch, -timedelta(minutes=rng.randrange(10, 600))).told_as("a clock is wrong")


@check(
    "registry.backup-as-committed",
    on=SchemaBackup,
    severity="blocker",
    advice="Take a new one while the registry is sound: `pipeline backup schemas`; and look at the "
    "volume that holds the repository.",
)
def backup_as_committed(subject: SchemaBackup) -> Iterator[Observation]:
    """Every object of the registry's backup is what was committed, its storage topic as well."""
    for name in schemas.BESIDE:
        if any(one.key.endswith(name) for one in subject.backup.manifest.objects):
            yield Observation(name, _problem(subject, name))
    for seen in proof.walk(subject.backup, schemas.BESIDE):
        yield Observation(seen.subject, seen.problem)
    named = subject.facts["storage"]
    missing = named is not None and named not in subject.facts["topics"]
    yield Observation("storage", f"{named} is not archived in it" if missing else None)


def _problem(subject: SchemaBackup, name: str) -> str | None:
    try:
        if name == schemas.REGISTRY:
            schemas.inventory_of(subject.backup)
        else:
            schemas.content(subject.backup, name)
    except Exception as error:  # noqa: BLE001 - whatever it is, it cannot be read
        return f"{type(error).__name__}: {error}"
    return None


@backup_as_committed.detects
def schema_edited_in_the_backup(scratch: Copy, _rng: Random) -> Damage:
    """Somebody changed a text, and made digests and manifest agree."""

    def change(body: dict[str, Any]) -> None:
        one = next(each for each in body["schemas"] if "Order" in each["schema"])
        one["schema"] = one["schema"].replace("Order", "Sale")

    registries.edit(scratch, change, sealed=False)
    return Damage(schemas.REGISTRY, "a text is another one", says="its fingerprint is")


@backup_as_committed.detects
def export_lost_a_bit(scratch: Copy, rng: Random) -> Damage:
    """A bit turned in the registry's own export."""
    key = newest(scratch, schemas.KIND).prefix + schemas.EXPORT
    return Damage(schemas.EXPORT, files.flip_bit(scratch, key, rng).what, says="sha256")


@backup_as_committed.detects
def storage_not_archived(scratch: Copy, _rng: Random) -> Damage:
    """The set names its storage topic and holds none of it."""
    backup = newest(scratch, schemas.KIND)
    reseal(scratch, backup, facts=backup.manifest.facts | {"topics": {}})
    return Damage("storage", "its archive is not named", says="is not archived in it")


@check(
    "registry.backed-up-schemas-usable",
    on=SchemaBackup,
    advice="Records of such a schema cannot be read: find the version that was meant, in an older "
    "backup (`pipeline list`) or where its producer is built, and register it.",
)
def backed_up_schemas_usable(subject: SchemaBackup) -> Iterator[Observation]:
    """Every schema of the backup parses, and each of its references leads to one that is in it."""
    for one in subject.inventory.schemas:
        yield Observation(str(one), unusable(one, subject.inventory.named))


@backed_up_schemas_usable.detects
def referred_to_and_not_backed_up(scratch: Copy, _rng: Random) -> Damage:
    """The version that another schema is built on is missing."""
    story = _story(scratch)

    def change(body: dict[str, Any]) -> None:
        body["schemas"] = [
            one for one in body["schemas"] if (one["subject"], one["version"]) != (story.values, 1)
        ]

    registries.edit(scratch, change)
    return Damage(f"{story.baskets} version 1", "its reference dangles", says="leads nowhere")


@backed_up_schemas_usable.detects
def text_cut(scratch: Copy, rng: Random) -> Damage:
    """A text was cut before it was stored."""
    story = _story(scratch)

    def change(body: dict[str, Any]) -> None:
        one = next(each for each in body["schemas"] if each["subject"] == story.gone)
        one["schema"] = one["schema"][: -rng.randrange(1, 9)]

    registries.edit(scratch, change)
    return Damage(f"{story.gone} version 1", "its text is cut", says="does not parse as AVRO")


@check(
    "registry.backup-explains-archived-records",
    on=SchemaBackup,
    severity="blocker",
    advice="Restored, these records would be bytes. Run `pipeline backup schemas`; where the "
    "registry does not know the id either, `registry.ids-in-records-known` says what to do.",
)
def backup_explains_archived_records(subject: SchemaBackup) -> Iterator[Observation]:
    """Every schema id in records of the newest topic archive is in the registry's backup."""
    for topic, part, seen in framed.carried(subject.archived, subject.inventory):
        for number, (count, first) in sorted(seen.ids.items()):
            known = number in subject.inventory.by_id
            lacking = f"no schema of it has this id, {count} records do, the first at {first}"
            yield Observation(f"{topic} {part} {number}", None if known else lacking)


def _without(scratch: Copy, version: int) -> Damage:
    story, found = _story(scratch), list[int]()

    def change(body: dict[str, Any]) -> None:
        named = (story.values, version)
        gone = [e for e in body["schemas"] if (e["subject"], e["version"]) == named]
        found.append(gone[0]["id"])
        body["schemas"] = [each for each in body["schemas"] if each not in gone]

    registries.edit(scratch, change)
    subject = f"{story.topic} value {found[0]}"
    return Damage(subject, f"version {version} is not in the backup", says="records do")


@backup_explains_archived_records.detects
def version_not_backed_up(scratch: Copy, _rng: Random) -> Damage:
    """An older version is missing: only old records need it."""
    return _without(scratch, 1)


@backup_explains_archived_records.detects
def ids_of_another_registry(scratch: Copy, _rng: Random) -> Damage:
    """The backup is of a registry that gave other ids to the same schemas."""
    story, found = _story(scratch), list[int]()

    def change(body: dict[str, Any]) -> None:
        found.extend(e["id"] for e in body["schemas"] if e["subject"] == story.values)
        for each in body["schemas"]:
            each["id"] += 1_000

    registries.edit(scratch, change)
    return Damage(f"{story.topic} value {found[0]}", "ids are those of others", says="records do")
