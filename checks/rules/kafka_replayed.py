"""Topics that a replay brought back: a count that fits proves nothing, so every record is read."""

from collections.abc import Callable, Iterator
from random import Random

from checks.check import Observation, check
from checks.kafka_records import Fields, fields
from checks.kafka_replays import ComparedPartition
from checks.kafka_subjects import ReplayedTopic
from fixtures.faults import kafka_live
from fixtures.kafka_story import COMPACTED, PLAIN, TRANSACTIONAL
from fixtures.scratch import Damage, Scratch
from pipeline.kafka.log.batches import walk
from pipeline.kafka.log.gaps import Reason
from pipeline.kafka.log.records import Record, unpacked

NOW_MS = 1_900_000_000_000


def partitions_of(replays: ReplayedTopic) -> Iterator[ComparedPartition]:
    for comparison in replays.comparisons:
        yield from comparison.partitions


def looked_at(replays: ReplayedTopic) -> Observation:
    """Say that the journals were read: a repository may know of no replay."""
    return Observation(str(replays.folder.name), None)


@check(
    "kafka.replayed-records-equal",
    on=ReplayedTopic,
    severity="blocker",
    advice="Do not let consumers in: replay the topic again under another name, compare the two, "
    "and find out who wrote to this one. `pipeline restore topic` proves what it wrote.",
)
def records_equal(replays: ReplayedTopic) -> Iterator[Observation]:
    """Every archived record is there once, in order, with its key, value, headers and time."""
    yield looked_at(replays)
    for partition in partitions_of(replays):
        for offset, problem in partition.differences:
            yield Observation(f"{partition}@{offset}", problem)
        if not partition.differences:
            yield Observation(str(partition), None)


def replayed_name(scratch: Scratch[ReplayedTopic], start: str) -> str:
    """The full name of the topic that a replay brought back."""
    return next(
        each.topic.name for each in scratch.copy.comparisons if each.topic.name.startswith(start)
    )


def rewritten(
    scratch: Scratch[ReplayedTopic],
    start: str,
    change: Callable[[list[Record]], tuple[int, list[Record]]],
    what: str,
) -> Damage:
    """Change records of the first partition; `change` tells at which offset it shows."""
    name, at = replayed_name(scratch, start), list[int]()

    def first(number: int, held: list[Record]) -> list[Record]:
        if number:
            return held
        offset, other = change(held)
        at.append(offset)
        return other

    kafka_live.rewrite(scratch, name, first)
    return Damage(f"{name}[0]@{at[0]}", what)


def _one(
    rng: Random, change: Callable[[Record], Record]
) -> Callable[[list[Record]], tuple[int, list[Record]]]:
    """Change a record that the change changes."""

    def anew(held: list[Record]) -> tuple[int, list[Record]]:
        number = rng.choice([n for n, each in enumerate(held) if change(each) != each])
        changed = [change(each) if n == number else each for n, each in enumerate(held)]
        return held[number].offset, changed

    return anew


def _headers(change: Callable[[Fields], Fields]) -> Callable[[Record], Record]:
    return lambda record: record._replace(body=kafka_live.body(*change(fields(record.body))))


@records_equal.detects
def record_missing(scratch: Scratch[ReplayedTopic], rng: Random) -> Damage:
    """One record is not there; start, end and offsets of all others are right."""

    def drop(held: list[Record]) -> tuple[int, list[Record]]:
        gone = held.pop(rng.randrange(len(held)))
        return gone.offset, held

    return rewritten(scratch, PLAIN, drop, "one record was left out").told_as("missing: ")


@records_equal.detects
def record_twice(scratch: Scratch[ReplayedTopic], rng: Random) -> Damage:
    """A retry that counted twice; all behind it moves by one."""

    def double(held: list[Record]) -> tuple[int, list[Record]]:
        number = rng.randrange(len(held) - 1)  # behind the last one nothing moves
        pushed = kafka_live.shifted(held, number)
        copy = held[number]._replace(offset=held[number].offset + 1)
        pushed.insert(number + 1, copy)
        return copy.offset, pushed

    return rewritten(scratch, PLAIN, double, "one record is there twice").told_as("archived was ")


@records_equal.detects
def two_swapped(scratch: Scratch[ReplayedTopic], rng: Random) -> Damage:
    """Two neighbours changed places: no count and no set of records tells."""

    def swap(held: list[Record]) -> tuple[int, list[Record]]:
        one, two = rng.choice(
            [pair for pair in kafka_live.adjacent(held) if pair[0].body != pair[1].body]
        )
        places = {one.offset: two, two.offset: one}
        changed = [places.get(each.offset, each)._replace(offset=each.offset) for each in held]
        return one.offset, changed

    return rewritten(scratch, COMPACTED, swap, "two records changed places").told_as(
        "archived was "
    )


@records_equal.detects
def in_the_wrong_partition(scratch: Scratch[ReplayedTopic], rng: Random) -> Damage:
    """Two partitions exchanged a record: the topic's count and its set of records are right."""
    name, at = replayed_name(scratch, PLAIN), rng.randrange(10)
    places = kafka_live.topic(scratch, name).places
    kafka = scratch.config.kafka
    bodies = [kafka_live.records(kafka, place)[at].body for place in places]

    def exchange(number: int, held: list[Record]) -> list[Record]:
        held[at] = held[at]._replace(body=bodies[1 - number])
        return held

    kafka_live.rewrite(scratch, name, exchange)
    return Damage(
        f"{name}[0]@{at}", "its record is in partition 1, and that one's here", says="archived was "
    )


@records_equal.detects
def headers_dropped(scratch: Scratch[ReplayedTopic], rng: Random) -> Damage:
    """A client that does not know headers."""
    change = _headers(lambda of: of._replace(headers=()))
    return rewritten(scratch, PLAIN, _one(rng, change), "its headers are gone").told_as(
        "another headers"
    )


@records_equal.detects
def headers_reordered(scratch: Scratch[ReplayedTopic], rng: Random) -> Damage:
    """A client that keeps them in a map."""
    change = _headers(lambda of: of._replace(headers=of.headers[::-1]))
    return rewritten(scratch, PLAIN, _one(rng, change), "its headers are in another order").told_as(
        "another headers"
    )


@records_equal.detects
def header_named_twice_collapsed(scratch: Scratch[ReplayedTopic], rng: Random) -> Damage:
    """A client that keeps one header of a name."""
    change = _headers(lambda of: of._replace(headers=tuple(dict(of.headers).items())))
    return rewritten(
        scratch, PLAIN, _one(rng, change), "one header of two of a name is left"
    ).told_as("another headers")


@records_equal.detects
def null_header_emptied(scratch: Scratch[ReplayedTopic], rng: Random) -> Damage:
    """A client without a word for null."""
    change = _headers(
        lambda of: of._replace(headers=tuple((name, held or b"") for name, held in of.headers))
    )
    return rewritten(scratch, PLAIN, _one(rng, change), "its null header is empty").told_as(
        "another headers"
    )


@records_equal.detects
def time_of_the_replay(scratch: Scratch[ReplayedTopic], rng: Random) -> Damage:
    """The producer's own clock stamped a record anew."""
    change = _one(rng, lambda record: record._replace(timestamp=NOW_MS))
    return rewritten(scratch, PLAIN, change, "its time is that of the replay").told_as(
        "its time is "
    )


@records_equal.detects
def time_off_by_a_millisecond(scratch: Scratch[ReplayedTopic], rng: Random) -> Damage:
    """Rounded on its way through another type."""
    by = rng.choice((-1, 1))
    change = _one(rng, lambda record: record._replace(timestamp=record.timestamp + by))
    return rewritten(scratch, TRANSACTIONAL, change, "its time moved by a millisecond").told_as(
        "its time is "
    )


@records_equal.detects
def aborted_records_leaked(scratch: Scratch[ReplayedTopic], _rng: Random) -> Damage:
    """A reader that sees uncommitted records wrote them down as live ones."""
    name = replayed_name(scratch, TRANSACTIONAL)
    comparison = next(each for each in scratch.copy.comparisons if each.topic.name == name)
    leaked = list(_aborted(comparison.partitions[0]))

    def leak(held: list[Record]) -> tuple[int, list[Record]]:
        return leaked[0].offset, sorted([*held, *leaked])

    return rewritten(
        scratch, TRANSACTIONAL, leak, "records of an aborted transaction are live"
    ).told_as("not from the archive: ")


def _aborted(partition: ComparedPartition) -> Iterator[Record]:
    for piece in partition.archived.pieces():
        gaps = [gap for gap in piece.content.gaps if gap.reason is Reason.ABORTED]
        for block in piece.blocks:
            for batch, view in walk(block, str(partition)):
                inside = any(gap.first <= batch.base_offset < gap.end for gap in gaps)
                if inside and not batch.control:
                    yield from unpacked(batch, view, str(partition))
