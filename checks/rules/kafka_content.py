"""Records of a topic archive: keys where their partitioner puts them, state that can be folded."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from random import Random

from checks.check import Observation, check
from checks.kafka_records import PARTITIONERS, fields, seen
from checks.kafka_subjects import TopicArchive
from fixtures.faults.kafka_archive import Forgery
from fixtures.kafka_story import COMPACTED, PLAIN
from fixtures.scratch import Damage, Scratch
from pipeline.kafka.archive import stored

SAMPLE = 5_000
"""Records of a partition whose keys are looked at, from its start."""
SURE_KEYS, SURE_SHARE = 20, 0.9
"""From here on a topic counts as one that a known partitioner writes."""
DAY = 86_400_000


@check(
    "kafka.keys-in-their-partition",
    on=TopicArchive,
    severity="normal",
    advice="Consumers that join or aggregate by key would not find these records: compare with "
    "the source topic. Was the number of partitions changed, or another producer let in?",
)
def keys_in_their_partition(topics: TopicArchive) -> Iterator[Observation]:
    """Where a topic's producers use a known partitioner, every key lies in its partition.

    A sample of each partition. A topic whose keys follow neither Kafka's nor librdkafka's default,
    as after a change of its number of partitions, is not judged.
    """
    for topic in topics.topics:
        keyed = _keys(topics, topic)
        count = len(topics.topics[topic]["partitions"])
        for where, keys in keyed.items():
            partition = int(where.rpartition("[")[2][:-1])
            yield Observation(where, _elsewhere(keys, partition, count))


def _keys(topics: TopicArchive, topic: str) -> dict[str, dict[bytes, int]]:
    """Keys with the first offset of each, by partition."""
    found: dict[str, dict[bytes, int]] = {}
    for where, name, _ in topics.places():
        if name == topic and where in topics.indexes:
            keys: dict[bytes, int] = {}
            for record in islice(seen(topics.partition(where)), SAMPLE):
                if (key := fields(record.body).key) is not None:
                    keys.setdefault(key, record.offset)
            found[where] = keys
    return found


def _elsewhere(keys: dict[bytes, int], partition: int, count: int) -> str | None:
    if count == 1 or len(keys) < SURE_KEYS:
        return None
    for name, hashed in PARTITIONERS.items():
        leads = {key: hashed(key) % count for key in keys}
        where, often = Counter(leads.values()).most_common(1)[0]
        if often < SURE_SHARE * len(keys):
            continue
        if where != partition:
            return f"{often} of {len(keys)} keys belong to partition {where} ({name})"
        strays = sorted(keys[key] for key, lead in leads.items() if lead != partition)
        if strays:
            return f"keys at offsets {strays[:10]} belong to another partition ({name})"
        return None
    return None


@keys_in_their_partition.detects
def partitions_exchanged(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """Everything of one partition under the number of the other, all lists made anew."""
    one, other = (Forgery.of(scratch, PLAIN, number) for number in (0, 1))
    theirs = [record for n in range(4) for record in other.records(n)]
    at = 0
    for number, segment in enumerate(one.index.segments):
        many = segment.records
        taken = [theirs[(at + each) % len(theirs)] for each in range(many)]
        anew = [r._replace(offset=segment.first + each) for each, r in enumerate(taken)]
        one, at = one.rewrite(number, anew), at + many
    one.seal()
    return Damage(
        one.where,
        f"its records are those of partition 1 ({rng.random():.3f})",
        says="keys belong to partition",
    )


@keys_in_their_partition.detects
def stray_record(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """A producer with another partitioner wrote one record."""
    one, other = (Forgery.of(scratch, PLAIN, number) for number in (0, 1))
    number = one.middle(rng)
    records, theirs = one.records(number), other.records(number)
    chosen = rng.randrange(len(records))
    records[chosen] = records[chosen]._replace(body=rng.choice(theirs).body)
    one.rewrite(number, records).seal()
    return Damage(
        one.where,
        f"the record at {records[chosen].offset} is of partition 1",
        says="belong to another partition",
    )


@check(
    "kafka.compacted-state-known",
    on=TopicArchive,
    severity="critical",
    advice="Keys that were deleted may be alive in this archive: run `pipeline backup topics "
    "--full`, and archive compacted topics more often than delete.retention.ms.",
)
def compacted_state_known(topics: TopicArchive) -> Iterator[Observation]:
    """Compacted topics fold to one state: all records have keys, and no tombstone can be missed."""
    yield Observation(topics.backup.label, None)  # a cluster may have no compacted topic
    for where, index in topics.indexes.items():
        if not index.compacted:
            continue
        told = topics.topics[index.topic]
        configured = told["defaults"] | told["overrides"]
        within = timedelta(milliseconds=int(configured.get("delete.retention.ms", DAY)))
        moments = list(index.segments)
        late = moments and not stored.in_time(moments, moments[-1].decided, within)
        missed = f"runs lay further apart than tombstones are kept ({within})"
        keyless = [
            record.offset
            for record in seen(topics.partition(where))
            if fields(record.body).key is None
        ]
        without = (
            f"records without a key at {keyless[:10]}: no broker takes them" if keyless else None
        )
        yield Observation(where, missed if late else without)


@compacted_state_known.detects
def tombstones_went_between_runs(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """The archive went on from a run of last month."""
    forgery = Forgery.of(scratch, COMPACTED)
    noted = forgery.inventory(0)
    earlier = noted.decided - timedelta(days=rng.randrange(2, 40))
    forgery.note(0, noted.model_copy(update={"decided": earlier})).seal()
    return Damage(
        forgery.where, f"its first segment is of {earlier}", says="runs lay further apart"
    )


@compacted_state_known.detects
def record_without_a_key(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """A record of another topic, or a key that was lost on the way."""
    forgery = Forgery.of(scratch, COMPACTED)
    number = forgery.middle(rng)
    records = forgery.records(number)
    chosen = rng.randrange(len(records))
    old = fields(records[chosen].body)
    without = b"\x01" + records[chosen].body[1 + len(old.key or b"") :]
    records[chosen] = records[chosen]._replace(body=without)
    forgery.rewrite(number, records).seal()
    return Damage(
        forgery.where,
        f"the record at {records[chosen].offset} has no key",
        says="records without a key",
    )
