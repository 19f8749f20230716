"""Backed up offsets of consumer groups, beside the topic archive that they would go on in."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from random import Random
from typing import Any

from checks.check import Observation, check
from checks.kafka_records import fingerprint, seen
from checks.kafka_subjects import OffsetsBackup
from fixtures.faults import files
from fixtures.faults.kafka_archive import newest, put, reseal
from fixtures.kafka_story import PLAIN
from fixtures.scratch import Damage, Scratch
from pipeline.errors import PipelineError
from pipeline.kafka.groups import groups
from pipeline.kafka.groups.groups import Position
from pipeline.kafka.groups.surroundings import Seen

BESIDE = timedelta(hours=26)
"""How much older than the archive the groups may be: they are backed up daily."""


@check(
    "kafka.group-backup-whole",
    on=OffsetsBackup,
    severity="blocker",
    advice="These groups would start anew, at their auto.offset.reset: restore from the backup "
    "before, and run `pipeline backup offsets`.",
)
def group_backup_whole(offsets: OffsetsBackup) -> Iterator[Observation]:
    """The backup of groups is as it was committed, and holds every offset that it counts."""
    backup = offsets.chosen
    counted = {group.name: len(group.positions) for group in offsets.groups}
    told = {name: each["offsets"] for name, each in backup.manifest.facts["groups"].items()}
    missing = backup.manifest.facts.get("incomplete", {})
    yield Observation(backup.label, None)
    for name in sorted(counted.keys() | told.keys() | missing.keys()):
        other = f"{told.get(name)} offsets were noted, {counted.get(name)} are there"
        same = counted.get(name) == told.get(name)
        yield Observation(name, missing.get(name) if same else other)


def edited(scratch: Scratch[Any], change: Callable[[list[Any]], str], what: str) -> Damage:
    """Rewrite the groups, and their manifest's digest; `change` tells whom it harms."""
    backup = newest(scratch, groups.KIND)
    key = backup.manifest.objects[0].key
    content = json.loads(scratch.path(key).read_bytes())
    subject = change(content)
    put(scratch, backup, key, json.dumps(content).encode())
    return Damage(subject, what)


@group_backup_whole.detects
def group_left_out(scratch: Scratch[OffsetsBackup], rng: Random) -> Damage:
    """A coordinator did not answer, and its groups passed for none."""

    def drop(all_: list[Any]) -> str:
        return str(all_.pop(rng.randrange(len(all_)))["name"])

    return edited(scratch, drop, "the group is not in the backup").told_as(
        "offsets were noted, None"
    )


@group_backup_whole.detects
def partition_left_out(scratch: Scratch[OffsetsBackup], rng: Random) -> Damage:
    """Some of a group's partitions were asked for, not all."""

    def drop_one(all_: list[Any]) -> str:
        group = rng.choice(all_)
        group["positions"].pop(rng.randrange(len(group["positions"])))
        return str(group["name"])

    return edited(scratch, drop_one, "one of its offsets is not in the backup").told_as(
        "offsets were noted,"
    )


@group_backup_whole.detects
def coordinator_did_not_answer(scratch: Scratch[OffsetsBackup], rng: Random) -> Damage:
    """The run said so and ended with 1; the set holds the other groups."""
    backup, name = newest(scratch, groups.KIND), f"group-{rng.randrange(1_000)}"
    facts = backup.manifest.facts | {"incomplete": {name: "its coordinator did not answer"}}
    reseal(scratch, backup, facts=facts)
    return Damage(name, "it could not be read", says="its coordinator did not answer")


@check(
    "kafka.group-backup-intact",
    on=OffsetsBackup,
    severity="blocker",
    advice="Do not restore from it: take the backup before, run `pipeline backup offsets`, and "
    "look at the storage below the repository.",
)
def group_backup_intact(offsets: OffsetsBackup) -> Iterator[Observation]:
    """The object that holds the groups is byte for byte what its manifest says."""
    backup = offsets.chosen
    for entry in backup.manifest.objects:
        found = _damage(offsets)
        yield Observation(entry.key, found)


def _damage(offsets: OffsetsBackup) -> str | None:
    try:
        _ = offsets.groups
    except (PipelineError, ValueError) as error:
        return str(error)
    return None


@group_backup_intact.detects
def bit_flipped(scratch: Scratch[OffsetsBackup], rng: Random) -> Damage:
    """Bit rot in the committed offsets."""
    key = newest(scratch, groups.KIND).manifest.objects[0].key
    return files.flip_bit(scratch, key, rng).told_as("with sha256")


@group_backup_intact.detects
def truncated(scratch: Scratch[OffsetsBackup], rng: Random) -> Damage:
    """A copy that ended early."""
    key = newest(scratch, groups.KIND).manifest.objects[0].key
    return files.truncate(scratch, key, rng).told_as("with sha256")


@group_backup_intact.detects
def object_gone(scratch: Scratch[OffsetsBackup], _rng: Random) -> Damage:
    """A lifecycle rule that expired the object and not its manifest."""
    return files.drop(scratch, newest(scratch, groups.KIND).manifest.objects[0].key).told_as(
        "no object"
    )


@check(
    "kafka.groups-beside-archive",
    on=OffsetsBackup,
    severity="critical",
    advice="Run `pipeline backup offsets` before each `pipeline backup topics`: offsets that are "
    "newer than the records of the archive can only be clamped to its end.",
)
def groups_beside_archive(offsets: OffsetsBackup) -> Iterator[Observation]:
    """The newest topic archive has a backup of groups that was taken before it, at most a day."""
    archive = offsets.archive.backup
    if offsets.backup is None:
        newer = f"all of {len(offsets.labels)} backups of groups are newer"
        yield Observation(
            archive.label, newer if offsets.labels else "there is no backup of groups"
        )
        return
    age = archive.manifest.finished - offsets.backup.manifest.finished
    old = f"{offsets.backup.label} is {age} older, at most {BESIDE} are planned"
    yield Observation(archive.label, old if age > BESIDE else None)
    other = (offsets.backup.manifest.facts["cluster_id"], archive.manifest.facts["cluster_id"])
    differ = f"its cluster is {other[0]}, the archive's {other[1]}"
    yield Observation(offsets.backup.label, None if other[0] == other[1] else differ)


def _shift(scratch: Scratch[OffsetsBackup], by: timedelta) -> Damage:
    backup = newest(scratch, groups.KIND)
    finished = backup.manifest.finished + by
    reseal(scratch, backup, started=finished, finished=finished)
    return Damage(scratch.copy.archive.backup.label, f"the groups are of {finished}")


@groups_beside_archive.detects
def groups_taken_afterwards(scratch: Scratch[OffsetsBackup], rng: Random) -> Damage:
    """Topics first, groups an hour later: they stand beyond what was archived."""
    return _shift(scratch, timedelta(minutes=rng.randrange(5, 500))).told_as(
        "backups of groups are newer"
    )


@groups_beside_archive.detects
def groups_of_last_week(scratch: Scratch[OffsetsBackup], rng: Random) -> Damage:
    """The last backup of groups before the archive is days old."""
    return _shift(scratch, -timedelta(hours=27 + rng.randrange(100))).told_as(" older, at most")


@groups_beside_archive.detects
def groups_of_another_cluster(scratch: Scratch[OffsetsBackup], rng: Random) -> Damage:
    """Two clusters share a repository."""
    backup = newest(scratch, groups.KIND)
    facts = backup.manifest.facts | {"cluster_id": f"{rng.getrandbits(64):x}"}
    reseal(scratch, backup, facts=facts)
    return Damage(backup.label, "its cluster is another", says="its cluster is")


@check(
    "kafka.group-offsets-in-archive",
    on=OffsetsBackup,
    severity="critical",
    advice="A consumer would be reset silently, to the beginning or the end: `pipeline restore "
    "offsets` clamps such an offset and counts it. Find out which of the two backups is wrong.",
)
def group_offsets_in_archive(offsets: OffsetsBackup) -> Iterator[Observation]:
    """Every backed up offset lies in the range that the topic archive holds.

    One of a topic that was gone tells nothing of where it stood: the archive does not hold it.
    """
    for group, position in _positions(offsets):
        where = f"{position.topic}[{position.partition}]"
        index = offsets.archive.indexes.get(where)
        if position.around is None:
            here = f"it was backed up as of a topic that was gone, and the archive holds {where}"
            problem = here if index else None
        elif position.around.unseen:
            problem = None  # nobody could look at it, and `kafka.group-backup-whole` says so
        elif index is None:
            problem = f"the archive does not hold {where}"
        elif position.around.topic_id != index.topic_id:
            problem = f"it is of topic id {position.around.topic_id}, archived was {index.topic_id}"
        elif position.offset > index.end:
            problem = f"it lies {position.offset - index.end} offsets beyond the end {index.end}"
        elif position.offset < index.start:
            problem = f"it lies before the start {index.start}"
        else:
            problem = None
        yield Observation(f"{group}: {position.spot}", problem)


def _positions(offsets: OffsetsBackup) -> Iterator[tuple[str, Position]]:
    for group in offsets.groups:
        for position in group.positions:
            yield group.name, position


def _move(scratch: Scratch[OffsetsBackup], rng: Random, to: Callable[[int], int]) -> Damage:
    """Change one committed offset, in a topic where every offset is a record."""

    def move(all_: list[Any]) -> str:
        group = next(each for each in all_ if each["positions"][0]["topic"] == PLAIN)
        one = rng.choice(group["positions"])
        one["offset"] = to(one["offset"])
        return _named(group, one)

    return edited(scratch, move, "it is another offset than was committed")


def _named(group: dict[str, Any], position: dict[str, Any]) -> str:
    where = f"{position['topic']}[{position['partition']}]"
    return f"{group['name']}: {where}@{position['offset']}"


@group_offsets_in_archive.detects
def beyond_the_end(scratch: Scratch[OffsetsBackup], rng: Random) -> Damage:
    """Brokers accept any offset, up to 2^63."""
    return _move(scratch, rng, lambda _: rng.randrange(1_000, 10**9)).told_as(
        "offsets beyond the end"
    )


@group_offsets_in_archive.detects
def before_the_start(scratch: Scratch[OffsetsBackup], rng: Random) -> Damage:
    """An offset that retention had overtaken."""
    return _move(scratch, rng, lambda _: -rng.randrange(1, 9)).told_as("it lies before the start")


@group_offsets_in_archive.detects
def topic_of_another_life(scratch: Scratch[OffsetsBackup], rng: Random) -> Damage:
    """The topic was made anew between the two backups."""

    def other(all_: list[Any]) -> str:
        one = all_[rng.randrange(len(all_))]
        position = one["positions"][0]
        position["around"]["topic_id"] = "00000000-0000-0000-0000-000000000001"
        return _named(one, position)

    return edited(scratch, other, "its topic id is another").told_as("it is of topic id")


@group_offsets_in_archive.detects
def surroundings_left_out(scratch: Scratch[OffsetsBackup], rng: Random) -> Damage:
    """What would prove the offset is gone, and nothing would be compared any more."""

    def alone(all_: list[Any]) -> str:
        one = rng.choice(all_)
        position = rng.choice(one["positions"])
        position["around"] = None
        return _named(one, position)

    return edited(scratch, alone, "the record that stands there was not noted").told_as(
        "a topic that was gone"
    )


@check(
    "kafka.group-offsets-at-their-records",
    on=OffsetsBackup,
    severity="critical",
    advice="The group would skip or repeat records: `pipeline restore offsets` refuses it. Compare "
    "the group's lag with its application, and take the backup before this one.",
)
def group_offsets_at_their_records(offsets: OffsetsBackup) -> Iterator[Observation]:
    """At each backed up offset the archive holds the record that the group would have read next."""
    for group, position in _positions(offsets):
        where = f"{position.topic}[{position.partition}]"
        yield Observation(f"{group}: {position.spot}", _next_record(offsets, where, position))


def _next_record(offsets: OffsetsBackup, where: str, position: Position) -> str | None:
    index, around = offsets.archive.indexes.get(where), position.around
    if index is None or around is None or around.next is None:
        return None  # another check names what lies outside; at its end a group reads nothing
    if not index.start <= position.offset < index.end:
        return None
    record = next(seen(offsets.archive.partition(where), position.offset), None)
    noted = around.next
    if record is None:
        return f"nothing follows in the archive, noted was the record at {noted.offset}"
    if index.compacted and position.offset <= noted.offset < record.offset:
        return None  # compacted away since
    digest = fingerprint(record.body)
    found = Seen(offset=record.offset, timestamp=record.timestamp, sha256=digest)
    return None if found == noted else f"the next record is {found}, noted was {noted}"


@group_offsets_at_their_records.detects
def shifted(scratch: Scratch[OffsetsBackup], rng: Random) -> Damage:
    """A tool that counted records where offsets count, and forgot the markers."""
    return _move(scratch, rng, lambda offset: offset + rng.randrange(1, 5)).told_as("noted was")


@group_offsets_at_their_records.detects
def shifted_back(scratch: Scratch[OffsetsBackup], rng: Random) -> Damage:
    """A sparse map of offsets that rounds down."""
    return _move(scratch, rng, lambda offset: offset - rng.randrange(1, 3)).told_as("noted was")
