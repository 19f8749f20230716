"""The running schema registry: what it held when it was backed up, and what records need of it."""

from collections.abc import Iterator
from random import Random

from checks.check import NotRun, Observation, check
from checks.registry_subjects import Registry
from fixtures.faults import kafka_live, registries
from fixtures.registry_material import RegistryStory
from fixtures.scratch import Damage, Scratch
from fixtures.stacks.registry import JOURNAL
from pipeline.kafka.replay import replay_journal
from pipeline.registry import apicurio
from pipeline.registry.schemas import READWRITE, schemas_changed, settings_changed

Copy = Scratch[Registry]
OTHER = '{"type": "object", "properties": {"other": {"type": "integer"}}}'
_RECOVER = "`pipeline recover registry --plan` says how far it reaches"


def _story(scratch: Copy) -> RegistryStory:
    topics = scratch.copy.backup.facts["carried"]
    return RegistryStory(scratch.config, next(iter(topics)).removesuffix("-orders"))


@check(
    "registry.schemas-as-backed-up",
    on=Registry,
    severity="blocker",
    advice=f"Records under these ids are read by other schemas now, or by none. {_RECOVER}. What "
    "was deleted on purpose is in the next backup as such.",
)
def schemas_as_backed_up(registry: Registry) -> Iterator[Observation]:
    """Every version has its id, text, type and references, and what was deleted stayed so."""
    then = registry.backup.inventory
    told = dict(schemas_changed(then, registry.now))
    for one in then.schemas:
        yield Observation(str(one), told.pop(str(one), None))
    yield from (Observation(name, why) for name, why in told.items())


@schemas_as_backed_up.detects
def subject_deleted_for_good(scratch: Copy, _rng: Random) -> Damage:
    """Somebody tidied up: no record of it can be read any more."""
    story = _story(scratch)
    registries.delete_for_good(scratch, story.gone)
    return Damage(f"{story.gone} version 1", "it was deleted for good", says="it is gone")


@schemas_as_backed_up.detects
def registered_anew_after_a_deletion(scratch: Copy, _rng: Random) -> Damage:
    """A producer registered another schema under the name, and the version, of the old one."""
    subject = f"{_story(scratch).prefix}-asked-value"
    registries.delete_for_good(scratch, subject)
    with registries.own(scratch) as registry:
        registry.register(subject, OTHER, "JSON")
    return Damage(f"{subject} version 1", "it is another schema", says="its id is")


@schemas_as_backed_up.detects
def version_deleted(scratch: Copy, _rng: Random) -> Damage:
    """A version was soft-deleted: consumers that look for it by its number do not find it."""
    story = _story(scratch)
    with registries.own(scratch) as registry:
        registry.delete_version(story.values, 2)
    return Damage(f"{story.values} version 2", "it was deleted", says="expected alive")


@check(
    "registry.settings-as-backed-up",
    on=Registry,
    advice="Was it changed on purpose? Then take a new backup. Else put it back: with a lower "
    "level a producer registers what consumers cannot read.",
)
def settings_as_backed_up(registry: Registry) -> Iterator[Observation]:
    """Levels of compatibility, rules, modes and settings are what they were, also by subject."""
    told = dict(settings_changed(registry.backup.inventory, registry.now))
    for name in ("global compatibility", "global mode", *sorted(registry.now.subjects)):
        yield Observation(name, told.pop(name, None))
    yield from (Observation(name, why) for name, why in told.items())


@settings_as_backed_up.detects
def level_of_a_subject_lowered(scratch: Copy, _rng: Random) -> Damage:
    """Somebody let one incompatible schema pass, and left it so."""
    story = _story(scratch)
    with registries.own(scratch) as registry:
        registry.set_compatibility("NONE", story.values)
    return Damage(story.values, "everything is compatible now", says="expected")


@settings_as_backed_up.detects
def global_level_changed(scratch: Copy, rng: Random) -> Damage:
    """The level that most subjects follow is another one."""
    level = rng.choice(["BACKWARD", "FORWARD", "FULL_TRANSITIVE"])
    with registries.own(scratch) as registry:
        registry.set_compatibility(level)
    return Damage("global compatibility", f"it is {level}", says="compatibility is")


@check(
    "registry.takes-new-schemas",
    on=Registry,
    severity="blocker",
    advice="A restore was cut off, or somebody stopped registrations: put the mode back to "
    "READWRITE. In IMPORT nothing is checked, in READONLY every new table stops its connector.",
)
def takes_new_schemas(registry: Registry) -> Iterator[Observation]:
    """The registry, and each of its subjects, is in mode READWRITE."""
    now = registry.now
    for name, mode in {"global mode": now.mode, **now.subject_modes}.items():
        told = f"mode is {mode}, expected {READWRITE}"
        yield Observation(name, None if mode == READWRITE else told)


def _left_in(scratch: Copy, mode: str) -> Damage:
    with registries.own(scratch) as registry:
        registry.set_mode(mode)
    return Damage("global mode", f"it was left in {mode}", says=f"mode is {mode}")


@takes_new_schemas.detects
def left_in_import(scratch: Copy, _rng: Random) -> Damage:
    """A restore was killed before it put the old mode back."""
    return _left_in(scratch, "IMPORT")


@takes_new_schemas.detects
def left_read_only(scratch: Copy, _rng: Random) -> Damage:
    """A migration ended, and nobody opened the registry again."""
    return _left_in(scratch, "READONLY")


@check(
    "registry.ids-in-records-known",
    on=Registry,
    severity="blocker",
    advice=f"These records are bytes to every consumer. {_RECOVER}; an id that no backup knows is "
    "of a producer that uses another registry, or was written while this one was another.",
)
def ids_in_records_known(registry: Registry) -> Iterator[Observation]:
    """Every schema id in the records of the newest topic archive is known to the registry."""
    backup = registry.backup
    names = backup.inventory.subjects | registry.now.subjects
    for topic, parts in sorted(backup.archived.items()):
        for part, seen in parts.items():
            if not seen.carries_ids(subject=f"{topic}-{part}" in names):
                continue
            for number, (count, first) in sorted(seen.ids.items()):
                unknown = f"the registry has no such id, {count} records do, the first at {first}"
                known = number in registry.now.by_id
                yield Observation(f"{topic} {part} {number}", None if known else unknown)
    if not backup.archived:
        raise NotRun("no archive of topics: nothing tells which ids records carry")


@ids_in_records_known.detects
def schema_of_records_deleted(scratch: Copy, _rng: Random) -> Damage:
    """The subject of a topic was deleted for good, and the topic was not."""
    story = _story(scratch)
    number = scratch.copy.backup.facts["carried"][story.topic][0]
    registries.delete_for_good(scratch, story.baskets)  # it refers to the other
    registries.delete_for_good(scratch, story.values)
    subject = f"{story.topic} value {number}"
    return Damage(subject, "its subject was deleted for good", says="has no such id")


@ids_in_records_known.detects
def record_of_another_registry(scratch: Copy, rng: Random) -> Damage:
    """A producer registers elsewhere, and writes here."""
    story, number = _story(scratch), rng.randrange(1_000_000, 2_000_000)
    kafka_live.produce(scratch, story.topic, b"k", b"\0" + number.to_bytes(4, "big") + b"xy")
    story.back_up()
    return Damage(f"{story.topic} value {number}", "a record has its id", says="1 records do")


@check(
    "registry.storage-keeps-everything",
    on=Registry,
    severity="blocker",
    advice="At its next start the registry knows only what this topic still holds. Set it back "
    "now, while it runs and remembers: `cleanup.policy=compact` alone for `_schemas`; "
    "`cleanup.policy=delete` without a retention for Apicurio's journal: every record counts.",
)
def storage_keeps_everything(registry: Registry) -> Iterator[Observation]:
    """The topic that the registry keeps its state in has one partition, and deletes nothing."""
    topic = registry.storage
    settings = topic.defaults | topic.overrides
    count = len(topic.partitions)
    several = f"{count} partitions: records are read in no order, expected 1"
    yield Observation(f"{topic.name} partitions", None if count == 1 else several)
    journal = topic.name == apicurio.JOURNAL
    wanted = {"cleanup.policy": "delete" if journal else "compact"}
    wanted |= {"retention.ms": "-1", "retention.bytes": "-1"} if journal else {}
    for name, value in wanted.items():
        found = settings.get(name)
        told = f"{name} is {found}, expected {value}"
        yield Observation(f"{topic.name} {name}", None if found == value else told)


@storage_keeps_everything.detects
def storage_with_a_retention(scratch: Copy, rng: Random) -> Damage:
    """Somebody gave every topic a retention of some days."""
    days = str(86_400_000 * rng.randrange(1, 30))
    registries.configure(scratch, JOURNAL, retention_ms=days)
    return Damage(f"{JOURNAL} retention.ms", "what is older goes", says=f"is {days}, expected -1")


@storage_keeps_everything.detects
def storage_of_another_policy(scratch: Copy, _rng: Random) -> Damage:
    """The policy of one registry was set for the topic of another."""
    registries.configure(scratch, JOURNAL, cleanup_policy="compact,delete")
    subject = f"{JOURNAL} cleanup.policy"
    return Damage(subject, "it is both policies", says="is compact,delete, expected delete")


@check(
    "registry.storage-holds-what-it-held",
    on=Registry,
    severity="blocker",
    advice="The registry answers from its memory, and forgets at its next start. Do not restart "
    f"it: take `pipeline backup schemas` now, then recover the topic. {_RECOVER}.",
)
def storage_holds_what_it_held(registry: Registry) -> Iterator[Observation]:
    """The registry's topic is the one that was archived, from its first record to that end."""
    name, topic = registry.storage.name, registry.storage
    told = registry.backup.facts["topics"].get(name)
    if told is None:
        raise NotRun(f"the newest backup holds no {name}")
    repository, life = registry.config.repository.path, str(topic.topic_id)
    same = life in {told["topic_id"], *replay_journal.made(repository)}
    anew = f"it was made anew: topic id {topic.topic_id}, archived was {told['topic_id']}"
    yield Observation(name, None if same else anew)
    if life in replay_journal.made_empty(repository):
        return  # a recovery filled it: at other offsets
    for number, start, end in registry.archived_extents():
        found = registry.extents.get(number)
        where = f"{name}[{number}]"
        if found is None:
            yield Observation(where, "it is not there")
        elif found.high_watermark < end:
            yield Observation(where, f"it ends at {found.high_watermark}, archived up to {end}")
        else:
            gone = f"it begins at {found.start}, archived from {start}: records were deleted"
            yield Observation(where, gone if found.start > start else None)


@storage_holds_what_it_held.detects
def storage_emptied_beneath(scratch: Copy, _rng: Random) -> Damage:
    """Every record was deleted, and the registry answers as before."""
    end = scratch.copy.extents[0].high_watermark
    registries.delete_records(scratch, JOURNAL, end)
    return Damage(f"{JOURNAL}[0]", "its records were deleted", says="records were deleted")


@storage_holds_what_it_held.detects
def storage_cut_beneath(scratch: Copy, rng: Random) -> Damage:
    """A retention that was set for an hour took the oldest records."""
    found = scratch.copy.extents[0]
    registries.delete_records(scratch, JOURNAL, rng.randrange(found.start + 1, found.end))
    return Damage(f"{JOURNAL}[0]", "its first records were deleted", says="it begins at")
