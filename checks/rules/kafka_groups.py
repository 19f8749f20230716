"""Live consumer groups beside their backup: where they stand, and what they would read next."""

from collections.abc import Collection, Iterator
from random import Random
from typing import Any

from confluent_kafka import TopicPartition

from checks.check import Observation, check
from checks.kafka_subjects import LiveTopics
from checks.rules.kafka_group_backup import edited
from fixtures.faults import kafka_live
from fixtures.kafka_story import PLAIN, commit
from fixtures.scratch import Damage, Scratch
from pipeline.cdc import schemas
from pipeline.kafka.groups.groups import Group, Position
from pipeline.kafka.groups.surroundings import look
from pipeline.kafka.log.records import Record
from pipeline.kafka.replay import replay_journal


@check(
    "kafka.groups-as-backed-up",
    on=LiveTopics,
    severity="critical",
    advice="`pipeline restore offsets --group <name>` brings it back, with proof; without its "
    "offsets a consumer starts at auto.offset.reset. Was the group given up? Then back up anew.",
)
def groups_as_backed_up(live: LiveTopics) -> Iterator[Observation]:
    """Every group that was backed up is there, and none of its offsets is missing or went back.

    Where a group still stands, the backup has the metadata and leader epoch that it committed.
    """
    there, empty = live.groups, replay_journal.made_empty(live.config.repository.path)
    anew = {name for name, topic in live.topics.items() if str(topic.topic_id) in empty}
    # a registry reads its topic whole at each start; what its groups commit there means nothing
    anew |= {*schemas.STORAGE, live.config.registry.storage_topic or ""}
    yield Observation(live.offsets.chosen.label, None)
    for group in live.offsets.groups:
        yield from since_backup(group, there.get(group.name), anew)


def since_backup(
    then: Group, now: Group | None, anew: Collection[str] = ()
) -> Iterator[Observation]:
    """What became of a group; one that had nothing to go on from comes and goes as it likes.

    In topics that CDC filled `anew` offsets mean other records: there a group begins again.
    """
    standing = [p for p in then.positions if p.around is not None and p.topic not in anew]
    gone = now is None and bool(standing)
    yield Observation(then.name, "there is no such group any more" if gone else None)
    if now is not None:
        held = {p.spot[:2]: p for p in now.positions}
        for position in standing:
            yield Observation(_spot(then.name, position), _moved(position, held))


def _spot(group: str, position: Position) -> str:
    return f"{group}: {position.topic}[{position.partition}]"


def _moved(position: Position, held: dict[tuple[str, int], Position]) -> str | None:
    found = held.get((position.topic, position.partition))
    if found is None:
        return f"nothing is committed, it was {position.offset}"
    if found.offset < position.offset:
        return f"it went back to {found.offset} from {position.offset}: records would be read again"
    return _left_out(position, found) if found.offset == position.offset else None


def _left_out(position: Position, found: Position) -> str | None:
    """What was committed with the offset, and the backup does not have."""
    if found.metadata and found.metadata != position.metadata:
        return f"its metadata is {found.metadata!r}, backed up was {position.metadata!r}"
    epoch, kept = found.leader_epoch, position.leader_epoch
    if epoch is not None and epoch >= 0 and epoch != kept:
        return f"its leader epoch is {epoch}, backed up was {kept}"
    return None


def _group(scratch: Scratch[LiveTopics]) -> tuple[str, dict[tuple[str, int], int]]:
    """The group that reads the copy's own plain topic, and where it stands."""
    live = scratch.copy
    name = next(topic for topic in live.archive.topics if topic.startswith(PLAIN))
    for group in live.offsets.groups:  # the broker has groups of other copies too
        if any(position.topic == name for position in group.positions):
            return group.name, {p.spot[:2]: p.offset for p in group.positions}
    raise LookupError(PLAIN)


@groups_as_backed_up.detects
def group_deleted(scratch: Scratch[LiveTopics], _rng: Random) -> Damage:
    """An operator deleted it, or nobody read for longer than brokers remember."""
    name, _ = _group(scratch)
    admin = kafka_live.admin(scratch)
    admin.delete_consumer_groups([name])[name].result()
    return Damage(name, "it was deleted", says="there is no such group")


@groups_as_backed_up.detects
def group_set_back(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """A reset to an earlier offset: everything since is processed twice."""
    name, held = _group(scratch)
    place, offset = rng.choice(sorted(held.items()))
    commit(kafka_live.own(scratch), name, TopicPartition(*place, rng.randrange(offset)))
    return Damage(f"{name}: {place[0]}[{place[1]}]", "it was set back", says="it went back to")


def _left_out_of_the_backup(scratch: Scratch[LiveTopics], field: str, value: object) -> Damage:
    name, _ = _group(scratch)

    def forget(all_: list[Any]) -> str:
        group = next(each for each in all_ if each["name"] == name)
        one = next(each for each in group["positions"] if each["metadata"])
        one[field] = value
        return f"{name}: {one['topic']}[{one['partition']}]"

    what = field.replace("_", " ")
    return edited(scratch, forget, f"its {what} is not in the backup").told_as(f"its {what} is")


@groups_as_backed_up.detects
def metadata_left_out(scratch: Scratch[LiveTopics], _rng: Random) -> Damage:
    """Applications keep in it how far they are with what they have read."""
    return _left_out_of_the_backup(scratch, "metadata", "")


@groups_as_backed_up.detects
def leader_epoch_left_out(scratch: Scratch[LiveTopics], _rng: Random) -> Damage:
    """Without it a consumer does not notice that the log was cut below it."""
    return _left_out_of_the_backup(scratch, "leader_epoch", None)


@check(
    "kafka.group-offsets-in-log",
    on=LiveTopics,
    severity="critical",
    advice="Brokers accept any number, and a consumer there is reset without a word, to the "
    "beginning or the end: `pipeline restore offsets --group <name> --replace`, or reset by hand.",
)
def group_offsets_in_log(live: LiveTopics) -> Iterator[Observation]:
    """Every committed offset lies between start and end of its log."""
    spots = [(group.name, p) for group in live.groups.values() for p in group.positions]
    around = look(live.config.kafka, [position.spot for _, position in spots])
    yield Observation(live.config.kafka.bootstrap_servers, None)
    for group, position in spots:
        found = around.get(position.spot)
        if found is None:
            continue  # its topic is gone: no consumer goes on there
        problem = None
        if position.offset > found.end:
            problem = (
                f"{position.offset} is {position.offset - found.end} beyond its end {found.end}"
            )
        elif position.offset < found.start:
            problem = f"{position.offset} lies before its start {found.start}"
        yield Observation(_spot(group, position), problem)


@group_offsets_in_log.detects
def beyond_the_end(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """Offsets restored verbatim onto a shorter topic."""
    name, held = _group(scratch)
    place = rng.choice(sorted(held))
    commit(kafka_live.own(scratch), name, TopicPartition(*place, rng.randrange(1_000, 10**9)))
    return Damage(
        f"{name}: {place[0]}[{place[1]}]", "it lies beyond the end", says="beyond its end"
    )


@group_offsets_in_log.detects
def before_the_start(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """The log was shortened from its beginning, further than the group has read."""
    name, held = _group(scratch)
    place, offset = rng.choice(sorted(held.items()))
    described = kafka_live.topic(scratch, place[0])
    kafka_live.delete_below(scratch, described.places[place[1]], offset + rng.randrange(1, 5))
    return Damage(
        f"{name}: {place[0]}[{place[1]}]", "the log starts behind it", says="lies before its start"
    )


@check(
    "kafka.group-reads-on",
    on=LiveTopics,
    severity="critical",
    advice="Records moved under the group: it would skip or repeat some. Was the topic replayed "
    "with new offsets? Then `pipeline restore offsets` follows the map that its replay wrote.",
)
def group_reads_on(live: LiveTopics) -> Iterator[Observation]:
    """A group that stands where its backup says would read the same record next."""
    yield Observation(live.offsets.chosen.label, None)
    there = live.groups
    standing = [
        (group.name, position)
        for group in live.offsets.groups
        for position in group.positions
        if group.name in there
        and position.spot in {now.spot for now in there[group.name].positions}
    ]
    around = look(live.config.kafka, [position.spot for _, position in standing])
    for group, position in standing:
        then, now = position.around, around.get(position.spot)
        if then is None or now is None or then.next is None:
            continue
        gone = now.start > position.offset or (now.next is None and now.end <= position.offset)
        compacted = now.compacted and now.next and now.next.offset > then.next.offset
        same = now.next is not None and then.next.same(now.next)
        problem = None
        if not (same or gone or compacted):
            problem = f"the next record was {then.next}, it is {now.next or 'nothing'}"
        yield Observation(_spot(group, position), problem)


def _replayed(scratch: Scratch[LiveTopics], change: kafka_live.Change, what: str) -> Damage:
    """Make the topic anew with records elsewhere, and the group's offsets as they were."""
    name, held = _group(scratch)
    topic = next(iter(held))[0]
    kafka_live.rewrite(scratch, topic, change)
    places = [TopicPartition(*place, offset) for place, offset in held.items()]
    commit(kafka_live.own(scratch), name, *places)
    return Damage(f"{name}: {topic}[0]", what)


@group_reads_on.detects
def renumbered_topic(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """Replayed densely, and the offsets restored verbatim."""
    gone = rng.randrange(1, 4)

    def dense(_number: int, records: list[Record]) -> list[Record]:
        return [record._replace(offset=record.offset - gone) for record in records[gone:]]

    return _replayed(scratch, dense, f"all records stand {gone} offsets earlier").told_as(
        "the next record was"
    )


@group_reads_on.detects
def duplicate_before_it(scratch: Scratch[LiveTopics], _rng: Random) -> Damage:
    """One record twice in front of the group: everything behind moved by one."""

    def doubled(_number: int, records: list[Record]) -> list[Record]:
        pushed = kafka_live.shifted(records, 0)
        return [pushed[0], pushed[0]._replace(offset=1), *pushed[1:]]

    return _replayed(scratch, doubled, "all records stand an offset later").told_as(
        "the next record was"
    )
