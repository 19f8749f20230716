"""Sets of topics and of groups beside those before them: what went on the way, and their order."""

from collections.abc import Iterator
from copy import deepcopy
from datetime import timedelta
from random import Random
from typing import Any

from checks.check import Observation, check
from checks.kafka_subjects import KafkaBackups
from checks.recency import told_elsewhere
from fixtures.faults import files
from fixtures.faults.kafka_archive import again, newest, reseal
from fixtures.kafka_story import PLAIN
from fixtures.scratch import Damage, Scratch
from pipeline.kafka.archive import archive, losses
from pipeline.kafka.groups import groups
from pipeline.kafka.replay import replay_journal
from pipeline.repository.kinds import origin_of
from pipeline.repository.sets import MANIFEST, BackupSet


@check(
    "kafka.sets-hold-what-was-held",
    on=KafkaBackups,
    severity="blocker",
    advice="Find out who removed it: the job has backed up what was left. `pipeline recover "
    "topics` takes the named set by --from or --offsets. What was removed on purpose is given up "
    "by name, and older sets with it: `pipeline backup topics --gone NAME`, or `backup offsets`.",
)
def sets_hold_what_was_held(backups: KafkaBackups) -> Iterator[Observation]:
    """Every topic, in the life that it had, and every group's offsets are in the later sets too."""
    made = replay_journal.made(backups.path)
    for kind in (archive.KIND, groups.KIND):
        sets = list(backups.sets.sets(kind, told_elsewhere))
        for like in {origin_of(found.manifest): found for found in sets}.values():
            found = losses.walk(losses.comparable(sets, like.manifest), made)
            for name in sorted(found.held):
                yield Observation(name, str(found.lost[name]) if name in found.lost else None)


def _topic_changed(scratch: Scratch[KafkaBackups], topic: str, **changes: object) -> None:
    backup = newest(scratch)
    facts = deepcopy(backup.manifest.facts)
    facts["topics"][topic] |= changes
    reseal(scratch, backup, facts=facts)


def _topic(scratch: Scratch[KafkaBackups], rng: Random) -> str:
    names: list[str] = sorted(newest(scratch).manifest.facts["topics"])
    return rng.choice(names)


@sets_hold_what_was_held.detects
def topic_went(scratch: Scratch[KafkaBackups], rng: Random) -> Damage:
    """A topic was deleted, and the job archived the others."""
    topic, backup = _topic(scratch, rng), newest(scratch)
    facts = deepcopy(backup.manifest.facts)
    del facts["topics"][topic]
    reseal(scratch, backup, facts=facts)
    return Damage(topic, "it is not in the newest archive", says=" is gone in ")


@sets_hold_what_was_held.detects
def topic_made_anew(scratch: Scratch[KafkaBackups], rng: Random) -> Damage:
    """Its producers made the topic again, and the job archived the few records of that life."""
    topic = _topic(scratch, rng)
    _topic_changed(scratch, topic, topic_id="00000000-0000-0000-0000-000000000001")
    return Damage(topic, "its life in the newest archive is another", says=" was made anew in ")


@sets_hold_what_was_held.detects
def topic_emptied(scratch: Scratch[KafkaBackups], _rng: Random) -> Damage:
    """Somebody deleted its records, and nothing in its configuration explains that."""
    partitions = deepcopy(newest(scratch).manifest.facts["topics"][PLAIN]["partitions"])
    for told in partitions.values():
        told["records"] = 0
    _topic_changed(scratch, PLAIN, partitions=partitions)
    return Damage(PLAIN, "the newest archive holds no record of it", says=" is empty in ")


@sets_hold_what_was_held.detects
def group_went(scratch: Scratch[KafkaBackups], rng: Random) -> Damage:
    """With a topic its groups lose their offsets, and the next night they are in no backup."""
    backup = newest(scratch, groups.KIND)
    facts = deepcopy(backup.manifest.facts)
    name = rng.choice(sorted(facts["groups"]))
    topic = rng.choice(facts["groups"][name]["topics"])
    facts["groups"][name]["topics"].remove(topic)
    again(scratch, backup, backup.manifest.finished + timedelta(seconds=1), facts=facts)
    return Damage(
        f"{name} in {topic}",
        "the newest backup of groups lacks these offsets",
        says=" has no offsets in ",
    )


@check(
    "kafka.sets-in-order",
    on=KafkaBackups,
    severity="critical",
    advice="A clock was wrong when the named set was taken: what passes for the newest is not. "
    "Name the set that you mean in every restore, set the clock, and take a new archive.",
)
def sets_in_order(backups: KafkaBackups) -> Iterator[Observation]:
    """Archives that sort later end later: no partition of a topic's life goes back."""
    ends: dict[tuple[Any, ...], tuple[int, str]] = {}
    for backup in backups.sets.sets(archive.KIND, told_elsewhere):
        wrong = None
        for place, end in _ends(backup):
            before, label = ends.get(place, (0, ""))
            if end < before:
                wrong = f"{place[0]}[{place[2]}] ends at {end}, and at {before} in {label} before"
            else:
                ends[place] = end, backup.label
        yield Observation(backup.label, wrong)


def _ends(backup: BackupSet) -> Iterator[tuple[tuple[Any, ...], int]]:
    if backup.manifest.facts.get("limit") is None:
        for topic, told in backup.manifest.facts.get("topics", {}).items():
            for partition, each in told["partitions"].items():
                yield (topic, told["topic_id"], partition), each["end"]


@sets_in_order.detects
def clock_was_ahead(scratch: Scratch[KafkaBackups], rng: Random) -> Damage:
    """An older archive is dated after the newest one."""
    first, later = _first(scratch), newest(scratch).manifest.finished
    misdated = again(scratch, first, later + timedelta(seconds=rng.randrange(1, 99)))
    return Damage(misdated.label, f"{first.label} was dated after the newest", says=" before")


@sets_in_order.detects
def clock_was_behind(scratch: Scratch[KafkaBackups], rng: Random) -> Damage:
    """The newest archive sorts before all others."""
    first, last = _first(scratch), newest(scratch)
    again(scratch, last, first.manifest.started - timedelta(hours=rng.randrange(1, 99)))
    files.drop(scratch, last.prefix + MANIFEST)
    return Damage(first.label, f"{last.label} was dated before it", says=" before")


def _first(scratch: Scratch[KafkaBackups]) -> BackupSet:
    sets = scratch.copy.sets
    return sets.get(sets.labels(archive.KIND)[0])
