"""The bytes of a topic archive: objects, batches, and what segments say that they hold."""

from collections.abc import Iterator
from random import Random

from checks.check import Observation, check
from checks.kafka_subjects import TopicArchive
from fixtures.faults import files
from fixtures.faults.kafka_archive import Forgery, changed, joined, outcome
from fixtures.kafka_story import PLAIN, TRANSACTIONAL
from fixtures.scratch import Damage, Scratch
from pipeline.errors import PipelineError
from pipeline.kafka.archive.reading import inventory
from pipeline.kafka.log.batches import HEADER, Batch, Marker, marker, packed


@check(
    "kafka.archive-objects-match-manifest",
    on=TopicArchive,
    severity="blocker",
    advice="These offsets cannot be restored from this set: run `pipeline backup topics --full` "
    "while the brokers still have them, and look at the storage below the repository.",
)
def objects_match_manifest(topics: TopicArchive) -> Iterator[Observation]:
    """Every object of the newest topic archive is there, byte for byte as its manifest says."""
    for entry in topics.backup.manifest.objects:
        found = topics.found.objects.get(entry.key)
        if found is None:
            yield Observation(entry.key, "missing")
            continue
        size, sha256 = found
        shorter = f"expected {entry.size} bytes, found {size}"
        other = f"expected sha256 {entry.sha256}, found {sha256}"
        same = None if sha256 == entry.sha256 else other
        yield Observation(entry.key, same if size == entry.size else shorter)


def _object(scratch: Scratch[TopicArchive], rng: Random, ending: str = "") -> str:
    entries = scratch.copy.backup.manifest.objects
    return rng.choice([one.key for one in entries if ending in one.key])


@objects_match_manifest.detects
def bit_flipped(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """Bit rot in a segment."""
    return files.flip_bit(scratch, _object(scratch, rng, ".batches"), rng).told_as(
        "expected sha256"
    )


@objects_match_manifest.detects
def tail_cut_off(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """A copy that ended early."""
    return files.truncate(scratch, _object(scratch, rng), rng).told_as(" bytes, found")


@objects_match_manifest.detects
def segment_removed(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """A lifecycle rule removed a segment that lies in an older set's folder."""
    forgery = Forgery.of(scratch, PLAIN, rng.randrange(2))
    return files.drop(scratch, forgery.index.segments[forgery.middle(rng)].key).told_as("missing")


@objects_match_manifest.detects
def segments_swapped(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """Names and contents that a copy mixed up; their sizes may be equal."""
    index = Forgery.of(scratch, PLAIN, rng.randrange(2)).index
    one, other = rng.sample([segment.key for segment in index.segments], 2)
    return files.swap(scratch, one, other).told_as(", found ")


@check(
    "kafka.batches-sound",
    on=TopicArchive,
    severity="blocker",
    advice="The broker's own log was damaged before it was archived, or the archiver is broken: "
    "keep the older sets, compare with another replica, and look at the broker's disk.",
)
def batches_sound(topics: TopicArchive) -> Iterator[Observation]:
    """Every archived batch fits its CRC-32C and has no attribute that Kafka gives no meaning."""
    for where, found in topics.found.segments.items():
        bad = [each for segment in found for each in segment.bad]
        for offset, problem in bad:
            yield Observation(f"{where}@{offset}", problem)
        if not bad:
            yield Observation(where, None)


def _damaged_batch(
    scratch: Scratch[TopicArchive], rng: Random, topic: str, attributes: int
) -> Damage:
    """Set attributes of one batch, or flip a bit of its records where there are none to set."""
    forgery = Forgery.of(scratch, topic)
    number = forgery.middle(rng)
    batches = forgery.batches(number)
    data = [n for n, (batch, _) in enumerate(batches) if not batch.control]
    chosen = rng.choice(data)
    batch = batches[chosen][0]

    def anew(batch: Batch, view: bytes) -> bytes:
        if attributes:
            return packed(batch._replace(attributes=batch.attributes | attributes), view[61:])
        content = bytearray(view)
        content[rng.randrange(HEADER.size, len(view))] ^= 1 << rng.randrange(8)
        return bytes(content)

    forgery.hold(number, changed(batches, chosen, anew), counted=bool(attributes)).seal()
    what = f"attributes {attributes:#x} were set" if attributes else "one bit was flipped"
    return Damage(f"{forgery.where}@{batch.base_offset}", f"{what}, and all digests made anew")


@batches_sound.detects
def bit_flipped_before_it_was_archived(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """The digests are of what was read, and that was damaged already."""
    return _damaged_batch(scratch, rng, PLAIN, 0).told_as("CRC-32C is")


@batches_sound.detects
def unknown_attribute(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """A bit that a later Kafka may give a meaning; brokers take it without a word."""
    return _damaged_batch(scratch, rng, PLAIN, 1 << rng.randrange(7, 15)).told_as(
        "have no meaning that this version knows"
    )


@batches_sound.detects
def delete_horizon_in_a_plain_topic(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """Replayed, it lets the cleaner drop tombstones before their time."""
    return _damaged_batch(scratch, rng, PLAIN, 0x40).told_as("it has a delete horizon")


@check(
    "kafka.segments-hold-what-they-say",
    on=TopicArchive,
    severity="blocker",
    advice="Which of the two is wrong cannot be told from here: take the segment from an older "
    "set, or run `pipeline backup topics --full` while the brokers still have its offsets.",
)
def segments_hold_what_they_say(topics: TopicArchive) -> Iterator[Observation]:
    """A segment's batches add up to its inventory: offsets, records, bytes, gaps, outcomes.

    A transaction's marker says what the list of aborted transactions says of it.
    """
    for where, index in topics.indexes.items():
        for segment, found in zip(index.segments, topics.found.segments[where], strict=True):
            try:
                noted = inventory(topics.backup.store, index, segment)
            except PipelineError as error:
                yield Observation(segment.key, str(error))
                continue
            problem = found.trouble
            if found.content is not None and found.content != noted.content:
                problem = "; ".join(
                    f"{name}: its batches say {value!r}, its inventory {told!r}"
                    for name, value in found.content
                    if value != (told := getattr(noted.content, name))
                )
            meant = (segment.key, segment.first, segment.end)
            if problem is None and (noted.key, noted.first, noted.end) != meant:
                problem = f"its inventory is of {noted.key}, {noted.first} to {noted.end}"
            yield Observation(segment.key, problem)


@segments_hold_what_they_say.detects
def contents_swapped(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """Two segments exchanged, and a manifest that was made of what lay there then."""
    forgery = Forgery.of(scratch, PLAIN, rng.randrange(2))
    one, other = rng.sample(range(len(forgery.index.segments)), 2)
    contents = joined(forgery.batches(one)), joined(forgery.batches(other))
    forgery = forgery.hold(one, contents[1], counted=False)
    forgery.hold(other, contents[0], counted=False).seal()
    return Damage(
        forgery.index.segments[one].key,
        f"it holds what segment {other} held",
        says="its batches say",
    )


@segments_hold_what_they_say.detects
def segment_of_another_partition(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """A copy that went to the folder beside."""
    forgery, number = Forgery.of(scratch, PLAIN, 0), rng.randrange(1, 4)
    theirs = joined(Forgery.of(scratch, PLAIN, 1).batches(number))
    forgery.hold(number, theirs, counted=False).seal()
    return Damage(
        forgery.index.segments[number].key,
        "its batches are those of partition 1",
        says="its batches say",
    )


@segments_hold_what_they_say.detects
def batch_left_out(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """A reader that skipped a batch after its count was taken."""
    forgery = Forgery.of(scratch, TRANSACTIONAL)
    number = forgery.middle(rng)
    batches = forgery.batches(number)
    batches.pop(rng.randrange(1, len(batches)))
    forgery.hold(number, joined(batches), counted=False).seal()
    return Damage(
        forgery.index.segments[number].key, "it lost a batch", says="batches: its batches say"
    )


@segments_hold_what_they_say.detects
def batch_twice(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """A fetch that was stored again after its connection broke."""
    forgery = Forgery.of(scratch, PLAIN, rng.randrange(2))
    number = forgery.middle(rng)
    content = joined(forgery.batches(number))
    forgery.hold(number, content + content, counted=False).seal()
    return Damage(
        forgery.index.segments[number].key,
        "its batches are there twice",
        says="overlaps what ends at",
    )


@segments_hold_what_they_say.detects
def records_miscounted(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """An inventory of a program that counts markers as records."""
    forgery = Forgery.of(scratch, TRANSACTIONAL)
    number = forgery.middle(rng)
    noted = forgery.inventory(number)
    more = noted.content.model_copy(update={"records": noted.content.records + 2})
    forgery.note(number, noted.model_copy(update={"content": more})).seal()
    return Damage(
        forgery.index.segments[number].key,
        "its inventory counts two records more",
        says="records: its batches say",
    )


def _other_outcome(scratch: Scratch[TopicArchive], rng: Random, was: Marker, now: Marker) -> Damage:
    """Turn a marker, in the segment that holds its transaction; nothing else changes in it."""
    forgery = Forgery.of(scratch, TRANSACTIONAL)
    number = forgery.middle(rng)
    batches = forgery.batches(number)
    fit = [
        each
        for each, (batch, view) in enumerate(batches)
        if batch.control and marker(batch, memoryview(view), forgery.where) is was
    ]
    chosen = rng.choice(fit)
    content = changed(batches, chosen, lambda batch, view: outcome(batch, view, now))
    forgery.hold(number, content, counted=False).seal()
    what = f"the marker at {batches[chosen][0].base_offset} says {now.name}"
    return Damage(
        forgery.index.segments[number].key, what, says=f"says {now.name} of a transaction"
    )


@segments_hold_what_they_say.detects
def abort_became_commit(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """Records that a replay leaves out as aborted had been committed, if the marker is right."""
    return _other_outcome(scratch, rng, Marker.ABORT, Marker.COMMIT)


@segments_hold_what_they_say.detects
def commit_became_abort(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """Records that a replay brings were rolled back, if the marker is right."""
    return _other_outcome(scratch, rng, Marker.COMMIT, Marker.ABORT)
