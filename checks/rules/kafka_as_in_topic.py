"""A share of the archived ranges, held against what the brokers still have of them."""

from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from itertools import islice
from random import Random

from checks.check import CouldNotLook, Observation, check
from checks.kafka_ranges import Comparison, Range, archived, chosen
from checks.kafka_records import fields
from checks.kafka_subjects import LiveTopics
from checks.rules.kafka_topics import archived_name
from fixtures.faults.kafka_archive import Batches, Forgery, changed, joined, outcome, repacked
from fixtures.faults.kafka_live import body
from fixtures.kafka_story import COMPACTED, PLAIN, TRANSACTIONAL
from fixtures.scratch import Damage, Scratch
from pipeline.errors import BackupError, StoreError
from pipeline.kafka.archive.reading import inventory
from pipeline.kafka.cluster.raw import OffsetGone, RawReader
from pipeline.kafka.cluster.topics import extents
from pipeline.kafka.log.batches import HEADER, Batch, Marker, marker, packed
from pipeline.kafka.log.records import Record
from pipeline.kafka.replay import replay_journal

AT_MOST = 20
"""Differences that are named of one range."""
REPLAYED = "a replay brought the topic back"


@check(
    "kafka.archived-as-in-topic",
    on=LiveTopics,
    severity="blocker",
    advice="Digests agree with what was stored, and that is not what the topic holds: either was "
    "changed. Keep both, compare with another replica and an older set, and run "
    "`pipeline backup topics --full` once it is known that the topic is right.",
)
def archived_as_in_topic(live: LiveTopics) -> Iterator[Observation]:
    """What the topics still hold of the archive is the same, batch by batch, byte for byte.

    Each run reads `kafka.reread_bytes` of the archive once more from the brokers, another share
    each day. Offsets that retention or compaction took since are no difference. A topic that a
    replay brought back is left to `kafka.replayed-records-equal`.
    """
    path = live.config.repository.path
    replayed = replay_journal.made(path) - replay_journal.made_empty(path)
    indexes, today = live.archive.indexes.values(), datetime.now(UTC).date().toordinal()
    compared = 0
    with RawReader(live.config.kafka) as reader:
        for each in chosen(indexes, today, live.config.kafka.reread_bytes):
            why = _gone(live, each, replayed)
            if why == REPLAYED:
                compared += 1  # by another check, record by record
            if why is not None:
                yield Observation(f"{each}: {why}", None)
                continue
            compared += 1
            yield from _compared(live, reader, each)
    if not compared:
        raise CouldNotLook(
            "the topics hold nothing of the ranges whose turn it is: made anew, or shorter now",
            "Run `pipeline backup topics`, if that is meant: its ranges can be compared again.",
        )


def _gone(live: LiveTopics, each: Range, replayed: Collection[str]) -> str | None:
    """Why the brokers have nothing of a range; what should not be gone other checks name."""
    topic = live.topics.get(each.of.topic)
    if topic is None or each.of.partition not in topic.partitions:
        return "the brokers do not have it"
    if str(topic.topic_id) != each.of.topic_id:
        return REPLAYED if str(topic.topic_id) in replayed else "the topic was made anew"
    extent = live.extent(each.of.topic, each.of.partition)
    if extent is None or extent.start >= each.segment.end:
        return "no longer in the topic"
    return None


def _compared(live: LiveTopics, reader: RawReader, each: Range) -> Iterator[Observation]:
    topic, store = live.topics[each.of.topic], live.archive.backup.store
    place = next(one for one in topic.places if one.partition == each.of.partition)
    extent = extents(live.config.kafka, [place])[place]
    compacted = topic.compacted or each.of.compacted
    found = list[tuple[int, str]]()
    try:
        told = inventory(store, each.of, each.segment).content.aborted
        comparison = Comparison(reader, place, extent, compacted=compacted)
        ours = archived(store, each.segment)
        found += islice(comparison.differences(each.segment, ours, told), AT_MOST)
    except (BackupError, StoreError) as error:
        yield Observation(str(each), str(error))
        return
    except OffsetGone:
        if extents(live.config.kafka, [place])[place].start <= extent.start:
            raise
        yield Observation(f"{each}: retention deleted it meanwhile", None)
    for offset, problem in found:
        yield Observation(f"{each.of}@{offset}", problem)
    if not found:
        yield Observation(str(each), None)


def _forged(
    scratch: Scratch[LiveTopics],
    start: str,
    change: Callable[[Batches], tuple[int, bytes]],
    what: str,
    says: str,
) -> Damage:
    """Change a segment's batches, and make all lists agree; `change` tells the damaged offset."""
    forgery = Forgery.of(scratch, archived_name(scratch, start))
    offset, content = change(forgery.batches(0))
    forgery.hold(0, content, counted=True).seal()
    return Damage(f"{forgery.where}@{offset}", what, says)


def _one(
    chosen_by: Callable[[Batch], bool], rng: Random, anew: Callable[[Batch, bytes], bytes]
) -> Callable[[Batches], tuple[int, bytes]]:
    """Change one batch among those that fit."""

    def change(batches: Batches) -> tuple[int, bytes]:
        fit = [number for number, (batch, _) in enumerate(batches) if chosen_by(batch)]
        number = rng.choice(fit)
        return batches[number][0].base_offset, changed(batches, number, anew)

    return change


def _records(
    rng: Random, pick: Callable[[Record], bool], anew: Callable[[Record], Record | None]
) -> Callable[[Batches], tuple[int, bytes]]:
    """Change every picked record of a batch that has one; None takes it away."""

    def rebuilt(batch: Batch, view: bytes) -> bytes:
        return repacked(batch, view, lambda record: anew(record) if pick(record) else record)

    def change(batches: Batches) -> tuple[int, bytes]:
        fit = [
            number
            for number, (batch, view) in enumerate(batches)
            if not batch.control and rebuilt(batch, view) != view
        ]
        number = rng.choice(fit)
        return batches[number][0].base_offset, changed(batches, number, rebuilt)

    return change


def _data(batch: Batch) -> bool:
    return not batch.control


@archived_as_in_topic.detects
def leader_epoch_rewritten(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """No CRC covers it, and a follower cuts its log by it."""
    epoch = rng.randrange(5, 500)

    def anew(batch: Batch, view: bytes) -> bytes:
        return packed(batch._replace(leader_epoch=epoch), view[HEADER.size :])

    return _forged(
        scratch, PLAIN, _one(_data, rng, anew), f"leader epoch {epoch}", "leader epoch: archived is"
    )


@archived_as_in_topic.detects
def batches_in_another_order(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """Two neighbours changed places, and their offsets were made to follow."""

    def change(batches: Batches) -> tuple[int, bytes]:
        number = rng.randrange(len(batches) - 1)
        (one, ours), (other, theirs) = batches[number : number + 2]
        first = packed(other._replace(base_offset=one.base_offset), theirs[HEADER.size :])
        later = one.base_offset + other.last_offset_delta + 1
        second = packed(one._replace(base_offset=later), ours[HEADER.size :])
        rest = joined(batches[:number]), joined(batches[number + 2 :])
        return one.base_offset, rest[0] + first + second + rest[1]

    return _forged(
        scratch, PLAIN, change, "it changed places with the next", "base sequence: archived is"
    )


@archived_as_in_topic.detects
def tombstone_became_empty(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """A client that knows no null: as an empty value a tombstone deletes nothing."""

    def empty(record: Record) -> Record:
        was = fields(record.body)
        return record._replace(body=body(was.key, was.value or b"", was.headers))

    def tombstone(record: Record) -> bool:
        return fields(record.body).value is None

    return _forged(
        scratch,
        COMPACTED,
        _records(rng, tombstone, empty),
        "tombstones became values",
        "differs in value",
    )


@archived_as_in_topic.detects
def tombstones_gone(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """As if the cleaner had been there, and every deleted key is alive."""
    change = _records(rng, lambda record: fields(record.body).value is None, lambda _: None)
    return _forged(
        scratch,
        COMPACTED,
        change,
        "its tombstones are gone",
        "the archive does not hold the record",
    )


@archived_as_in_topic.detects
def times_shifted(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """An hour of another zone."""
    by = rng.choice((-1, 1)) * rng.randrange(1, 3_600_000)

    def later(record: Record) -> Record:
        return record._replace(timestamp=record.timestamp + by)

    return _forged(
        scratch,
        PLAIN,
        _records(rng, lambda _: True, later),
        f"times moved by {by} ms",
        "differs in time (",
    )


@archived_as_in_topic.detects
def headers_dropped(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """A copy by a client that had no use for them."""

    def bare(record: Record) -> Record:
        was = fields(record.body)
        return record._replace(body=body(was.key, was.value, ()))

    return _forged(
        scratch,
        PLAIN,
        _records(rng, lambda _: True, bare),
        "its headers are gone",
        "differs in headers",
    )


@archived_as_in_topic.detects
def abort_became_commit(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """Records that were rolled back would be delivered, with the list of aborted ones emptied."""
    forgery = Forgery.of(scratch, archived_name(scratch, TRANSACTIONAL))
    batches = forgery.batches(0)
    aborts = [
        number
        for number, (batch, view) in enumerate(batches)
        if batch.control and marker(batch, memoryview(view), forgery.where) is Marker.ABORT
    ]
    number = rng.choice(aborts)
    content = changed(batches, number, lambda batch, view: outcome(batch, view, Marker.COMMIT))
    noted = forgery.inventory(0)
    quiet = noted.content.model_copy(update={"aborted": ()})
    forgery = forgery.note(0, noted.model_copy(update={"content": quiet}))
    forgery.hold(0, content, counted=True).seal()
    return Damage(
        f"{forgery.where}@{batches[number][0].base_offset}",
        "its marker says commit",
        "marker: archived is COMMIT",
    )
