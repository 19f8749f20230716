"""The offsets of a topic archive: segment by segment without a hole, and every one explained."""

from collections.abc import Iterator
from random import Random

from checks.check import Observation, check
from checks.kafka_subjects import TopicArchive
from fixtures.faults.kafka_archive import Forgery, joined
from fixtures.kafka_story import PLAIN, TRANSACTIONAL
from fixtures.scratch import Damage, Scratch
from pipeline.kafka.log.gaps import Reason


@check(
    "kafka.offsets-tile",
    on=TopicArchive,
    severity="blocker",
    advice="A replay would end or jump there: restore from the set before, and run "
    "`pipeline backup topics --full` while the brokers still have these offsets.",
)
def offsets_tile(topics: TopicArchive) -> Iterator[Observation]:
    """Segments follow each other from log start to end, no offset left out, none there twice."""
    for where, index in topics.indexes.items():
        problems = list(index.problems())
        for problem in problems:
            yield Observation(where, problem)
        if not problems:
            yield Observation(where, None)


@offsets_tile.detects
def middle_segment_forgotten(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """It is in no list, so no digest misses it."""
    forgery = Forgery.of(scratch, PLAIN, rng.randrange(2))
    listed = list(forgery.index.segments)
    gone = listed.pop(forgery.middle(rng))
    forgery.chain(listed).seal()
    return Damage(
        forgery.where,
        f"offsets {gone.first} to {gone.end - 1} are in no segment",
        says=" begins at",
    )


@offsets_tile.detects
def segment_twice(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """Two runs that both added what was new."""
    forgery = Forgery.of(scratch, PLAIN, rng.randrange(2))
    listed, number = list(forgery.index.segments), forgery.middle(rng)
    forgery.chain([*listed[:number], listed[number], *listed[number:]]).seal()
    return Damage(forgery.where, f"{listed[number].key} is listed twice", says=" begins at")


@offsets_tile.detects
def segments_out_of_order(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """A list that was sorted by name where names no longer sort."""
    forgery = Forgery.of(scratch, PLAIN, rng.randrange(2))
    listed, number = list(forgery.index.segments), forgery.middle(rng)
    listed[number], listed[number - 1] = listed[number - 1], listed[number]
    forgery.chain(listed).seal()
    return Damage(forgery.where, "two neighbours changed places", says=" begins at")


@offsets_tile.detects
def index_ahead_of_what_is_stored(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """The end was noted before the last segment was written, and the run died."""
    forgery = Forgery.of(scratch, PLAIN, rng.randrange(2))
    end = forgery.index.end + rng.randrange(1, 100)
    forgery.chain(forgery.index.segments, end=end).seal()
    return Damage(forgery.where, f"its index ends at {end}", says="the segments end at")


@offsets_tile.detects
def chain_of_another_history(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """One link that somebody made anew, and did not carry on."""
    forgery = Forgery.of(scratch, PLAIN, rng.randrange(2))
    listed, number = list(forgery.index.segments), forgery.middle(rng)
    link = f"{rng.getrandbits(256):064x}"
    listed[number] = listed[number].model_copy(update={"link": link})
    index = forgery.index.model_copy(update={"segments": tuple(listed)})
    Forgery(scratch, index).seal()
    return Damage(
        forgery.where,
        f"the link of {listed[number].key} is another",
        says="does not follow what is before it",
    )


@check(
    "kafka.nothing-lost",
    on=TopicArchive,
    severity="blocker",
    advice="Look whether another replica or an older set has these offsets. If the topic is fed "
    "by CDC, read the rows again from PostgreSQL (docs/procedures.md, scenario 3).",
)
def nothing_lost(topics: TopicArchive) -> Iterator[Observation]:
    """Every offset without a record has a reason that Kafka gives; none went unarchived."""
    for where, topic, partition in topics.places():
        lost = [
            f"offsets {gap.first} to {gap.end - 1} are LOST"
            for segment in topics.found.segments.get(where, ())
            for gap in (segment.content.gaps if segment.content else ())
            if gap.reason is Reason.LOST
        ]
        told = topics.topics[topic]["partitions"][str(partition)]
        if told["missed"]:
            first, start = told["missed"]
            lost.append(f"offsets {first} to {start - 1} were deleted before any run archived them")
        for problem in lost:
            yield Observation(where, problem)
        if not lost:
            yield Observation(where, None)


@nothing_lost.detects
def batch_vanished_from_the_broker(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """The broker lost a batch: the archive is true to what was there."""
    forgery = Forgery.of(scratch, TRANSACTIONAL)
    number = forgery.middle(rng)
    batches = forgery.batches(number)
    data = [n for n, (batch, _) in enumerate(batches) if not batch.control and n]
    batch, _ = batches.pop(rng.choice(data))
    forgery.hold(number, joined(batches), counted=True).seal()
    last = batch.next_offset - 1
    return Damage(
        forgery.where, f"offsets {batch.base_offset} to {last} are not there", says=" are LOST"
    )


@nothing_lost.detects
def retention_was_faster(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """The topic keeps less than a week, and the plan archives weekly."""
    forgery = Forgery.of(scratch, PLAIN, rng.randrange(2))
    missed = [rng.randrange(3), forgery.index.segments[1].first]
    forgery.seal(facts={"missed": missed})
    return Damage(
        forgery.where,
        f"offsets {missed} went before any run came",
        says="were deleted before any run archived them",
    )
