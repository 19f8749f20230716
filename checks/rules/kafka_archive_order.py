"""The order of archived batches, where offsets were made to agree with another one."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from random import Random

from checks.check import Observation, check
from checks.kafka_subjects import TopicArchive
from fixtures.faults.kafka_archive import Forgery, repacked
from fixtures.kafka_story import PLAIN
from fixtures.scratch import Damage, Scratch
from pipeline.kafka.log.batches import HEADER, Batch, packed
from pipeline.kafka.log.records import Record

CLOCKS = 300_000
"""Milliseconds that the clocks of brokers and of the archiver may differ."""
FOREVER = 1 << 63


@check(
    "kafka.batches-in-order",
    on=TopicArchive,
    severity="critical",
    advice="A batch is missing, there twice or in another place, and the offsets were made to "
    "agree: compare with an older set, and with the topic (`kafka.archived-as-in-topic`).",
)
def batches_in_order(topics: TopicArchive) -> Iterator[Observation]:
    """Leader epochs never run backwards, and each producer's batches go on where its last ended.

    Sequences tell of idempotent and transactional producers alone, where no cleaner removes any.
    """
    for where, found in topics.found.segments.items():
        problems = [each for segment in found for each in segment.disordered]
        for offset, problem in problems:
            yield Observation(f"{where}@{offset}", problem)
        if not problems:
            yield Observation(where, None)


Pair = Callable[[Batch, Batch], tuple[Batch, Batch]]
"""Two neighbours of a producer to what their headers are to be."""


def _neighbours(
    scratch: Scratch[TopicArchive], rng: Random, change: Pair, what: str, says: str
) -> Damage:
    """Change two batches that follow each other; all lists agree, and the second shows it."""
    pairs = [
        (partition, number, at)
        for partition in (0, 1)
        for forgery in [Forgery.of(scratch, PLAIN, partition)]
        for number in range(len(forgery.index.segments))
        for at, _ in enumerate(pairwise(forgery.batches(number)))
    ]
    partition, number, at = rng.choice(pairs)
    forgery = Forgery.of(scratch, PLAIN, partition)
    batches = forgery.batches(number)
    bodies = {batch.crc: view[HEADER.size :] for batch, view in batches}
    offset, anew = batches[at][0].base_offset, list[bytes]()
    first, second = change(batches[at][0], batches[at + 1][0])
    for batch in (first, second):
        anew.append(packed(batch._replace(base_offset=offset), bodies[batch.crc]))
        offset += batch.last_offset_delta + 1
    views = [view for _, view in batches]
    forgery.hold(number, b"".join([*views[:at], *anew, *views[at + 2 :]]), counted=True).seal()
    at_offset = batches[at][0].base_offset + first.last_offset_delta + 1
    return Damage(f"{forgery.where}@{at_offset}", what, says)


@batches_in_order.detects
def batches_changed_places(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """An update lies before what it updates: no count, no offset and no digest tells."""
    return _neighbours(
        scratch,
        rng,
        lambda one, two: (two, one),
        "it stood before the other",
        "goes on at sequence",
    )


@batches_in_order.detects
def sequence_ran_back(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """As a batch that was dropped, and its neighbour put in its place."""

    def back(one: Batch, two: Batch) -> tuple[Batch, Batch]:
        return one, two._replace(base_sequence=one.base_sequence)

    return _neighbours(
        scratch, rng, back, "it begins at its neighbour's sequence", "goes on at sequence"
    )


@batches_in_order.detects
def leader_of_later(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """Batches of two histories in one log; no CRC covers who led."""
    later = rng.randrange(2, 900)

    def elected(one: Batch, two: Batch) -> tuple[Batch, Batch]:
        return one._replace(leader_epoch=one.leader_epoch + later), two

    return _neighbours(
        scratch, rng, elected, f"the one before it is {later} epochs later", "of two histories"
    )


@check(
    "kafka.times-not-ahead",
    on=TopicArchive,
    severity="normal",
    advice="Retention by time keeps such records for too long, and a replay is refused by "
    "message.timestamp.after.max.ms: compare with the topic, and with the producers' clocks. Times "
    "that were moved back, or by less, are seen in the topic alone.",
)
def times_not_ahead(topics: TopicArchive) -> Iterator[Observation]:
    """No record is of later than its broker would have taken when its segment was archived."""
    for index in topics.indexes.values():
        told = topics.topics[index.topic]
        config = told["defaults"] | told["overrides"]
        bound = int(config.get("message.timestamp.after.max.ms", FOREVER))
        if config.get("message.timestamp.type") == "LogAppendTime":
            bound = 0
        for segment in index.segments:
            decided = int(segment.decided.timestamp() * 1000)
            ahead = segment.newest - decided
            late = f"its newest record is {ahead} ms later than its run, allowed are {bound}"
            yield Observation(segment.key, late if ahead > bound + CLOCKS else None)


def _moved(scratch: Scratch[TopicArchive], rng: Random, time: Callable[[int], int]) -> Damage:
    """Give the records of a segment other times, and make all lists agree."""
    forgery = Forgery.of(scratch, PLAIN, rng.randrange(2))
    number = rng.randrange(len(forgery.index.segments))

    def moved(record: Record) -> Record:
        return record._replace(timestamp=time(record.timestamp))

    content = b"".join(repacked(*held, moved) for held in forgery.batches(number))
    forgery.hold(number, content, counted=True).seal()
    return Damage(
        forgery.index.segments[number].key, "its records are of another time", "later than its run"
    )


@times_not_ahead.detects
def times_moved_ahead(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """A copy that took local time for UTC."""
    by = rng.randrange(4, 13) * 3_600_000
    return _moved(scratch, rng, lambda time: time + by)


@times_not_ahead.detects
def times_in_another_unit(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """Microseconds where milliseconds belong."""
    return _moved(scratch, rng, lambda time: time * 1000 + rng.randrange(1000))
