"""What a topic archive says of itself: format, identity, counts, point in time, permissions."""

from collections.abc import Iterator
from random import Random
from typing import Any

from checks.check import Observation, check
from checks.kafka_subjects import TopicArchive
from fixtures.faults import files
from fixtures.faults.kafka_archive import Forgery, newest, put, reseal
from fixtures.kafka_story import COMPACTED, PLAIN, TRANSACTIONAL
from fixtures.scratch import Damage, Scratch
from pipeline.errors import PipelineError
from pipeline.kafka.archive import segments
from pipeline.kafka.archive.segments import INDEX, Index, Inventory
from pipeline.repository.sets import MANIFEST
from pipeline.repository.store import read

FACTS: dict[str, type] = {
    "cluster_id": str,
    "decided": str,
    "consistency_point": dict,
    "exports": dict,
    "not_archived": list,
    "topics": dict,
}
OF_TOPIC: dict[str, type] = {
    "topic_id": str,
    "replication": int,
    "overrides": dict,
    "defaults": dict,
    "partitions": dict,
}
"""What a replay must know before it touches a broker."""


@check(
    "kafka.archive-format",
    on=TopicArchive,
    severity="blocker",
    advice="Read it with the version that wrote it (`made_by` in its manifest), or run "
    "`pipeline backup topics --full` with this one while the brokers still have the records.",
)
def archive_format(topics: TopicArchive) -> Iterator[Observation]:
    """Manifest, indexes and inventories are complete and of the format that this version reads."""
    for subject, problem in _facts(topics):
        yield Observation(subject, problem)
    store = topics.backup.store
    for entry in topics.backup.manifest.objects:
        of: type[Index | Inventory]
        if entry.key.endswith(f"/{INDEX}"):
            of = Index
        elif entry.key.endswith(segments.INVENTORY):
            of = Inventory
        else:
            continue
        try:
            of.parse(read(store, entry.key), entry.key)
        except PipelineError as error:
            yield Observation(entry.key, str(error))
        else:
            yield Observation(entry.key, None)


def _facts(topics: TopicArchive) -> Iterator[tuple[str, str | None]]:
    for name, kind in FACTS.items():
        yield name, _missing(topics.facts, name, kind)
    for topic, told in topics.topics.items():
        for name, kind in OF_TOPIC.items():
            yield f"{topic}: {name}", _missing(told, name, kind)
        numbers = sorted(map(int, told.get("partitions", {})))
        count = told.get("partition_count", len(numbers))
        gaps = f"partitions {numbers}, expected {count}, all from 0 on"
        whole = numbers == list(range(count))
        yield f"{topic}: partitions", None if whole else gaps


def _missing(facts: dict[str, Any], name: str, kind: type) -> str | None:
    value = facts.get(name)
    return None if isinstance(value, kind) else f"expected {kind.__name__}, found {value!r}"


@archive_format.detects
def newer_index(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """A newer version archives into the same repository."""
    forgery = Forgery.of(scratch, PLAIN, rng.randrange(2))
    newer = forgery.index.model_copy(update={"format": segments.FORMAT + rng.randrange(1, 5)})
    Forgery(scratch, newer).seal()
    key = segments.folder(newest(scratch).prefix, newer.topic, newer.partition) + INDEX
    return Damage(key, f"it says that it is of format {newer.format}", says="this version reads")


@archive_format.detects
def inventory_with_a_word_too_many(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """A field that this version does not know may change what the others mean."""
    segment = Forgery.of(scratch, PLAIN).index.segments[rng.randrange(4)]
    content = scratch.path(segment.inventory_key).read_bytes()
    put(scratch, newest(scratch), segment.inventory_key, b'{"encrypted":true,' + content[1:])
    return Damage(
        segment.inventory_key, "it has an unknown field", says="validation error for Inventory"
    )


@archive_format.detects
def topic_without_its_id(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """A manifest of a tool that knows topics by their names alone."""
    backup = newest(scratch)
    facts = backup.manifest.model_dump()["facts"]
    name = rng.choice(sorted(OF_TOPIC.keys() - {"partitions"}))
    del facts["topics"][PLAIN][name]
    reseal(scratch, backup, facts=facts)
    return Damage(f"{PLAIN}: {name}", "the manifest does not tell it", says="found None")


@archive_format.detects
def partition_left_out(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """One partition's reader died, and nobody asked."""
    backup = newest(scratch)
    facts = backup.manifest.model_dump()["facts"]
    del facts["topics"][PLAIN]["partitions"]["0"]
    part = f"/{PLAIN}/0/"
    kept = [one for one in backup.manifest.objects if part not in one.key]
    reseal(scratch, backup, facts=facts, objects=kept)
    return Damage(
        f"{PLAIN}: partitions",
        f"partition 0 is in no list ({rng.random():.3f})",
        says="all from 0 on",
    )


@check(
    "kafka.archive-complete",
    on=TopicArchive,
    severity="blocker",
    advice="Mend what the reason names and run `pipeline backup topics` again; until then an older "
    "set holds the last whole state. A topic that is made and deleted all day: --exclude.",
)
def archive_complete(topics: TopicArchive) -> Iterator[Observation]:
    """Every topic that the newest run was to archive is whole in its set."""
    missing = topics.facts.get("incomplete", {})
    for name in [topics.backup.label, *topics.topics, *missing]:
        yield Observation(name, missing.get(name))


@archive_complete.detects
def leaderless_partition(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """A broker was down that night; the run ended with 1, and nobody looked."""
    backup, name = newest(scratch), rng.choice([PLAIN, TRANSACTIONAL])
    reseal(scratch, backup, facts=backup.manifest.facts | {"incomplete": {name: "[0] no leader"}})
    return Damage(name, "one partition had no leader", says="no leader")


@archive_complete.detects
def deleted_while_it_was_read(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """The topic went in the middle of the night, and nothing of it is in the set."""
    backup, name = newest(scratch), f"gone-{rng.randrange(1_000)}"
    facts = backup.manifest.facts | {"incomplete": {name: "it is not there"}}
    reseal(scratch, backup, facts=facts)
    return Damage(name, "it is in no list", says="it is not there")


@check(
    "kafka.index-as-manifest",
    on=TopicArchive,
    severity="blocker",
    advice="One of the two is of another run: restore from the set before it, run "
    "`pipeline backup topics --full`, and find out what copies or restores this repository.",
)
def index_as_manifest(topics: TopicArchive) -> Iterator[Observation]:
    """Each partition's index is the one that the manifest means, and counts what it counts."""
    for where, opened in topics.opened.items():
        if not isinstance(opened, Index):
            yield Observation(where, str(opened))
            continue
        topic, _, rest = where.rpartition("[")
        told = topics.topics[topic]["partitions"][rest[:-1]]
        counted = {
            "log_start": opened.log_start,
            "added": opened.added,
            "high_watermark": opened.high_watermark,
            "records": opened.records,
            "gaps": {str(why): offsets for why, offsets in opened.gaps.items()},
            "leader_epochs": [list(each) for each in opened.leader_epochs],
        }
        other = [
            f"{name}: its index says {value!r}, the manifest {told.get(name)!r}"
            for name, value in counted.items()
            if told.get(name) != value
        ]
        yield Observation(where, "; ".join(other) or None)


@index_as_manifest.detects
def stale_index(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """A part of the repository was put back from yesterday."""
    forgery = Forgery.of(scratch, PLAIN, rng.randrange(2))
    index, newer = forgery.index, newest(scratch)
    older = index.segments[rng.randrange(3)].key.rpartition("/")[0]
    key = segments.folder(newer.prefix, index.topic, index.partition) + INDEX
    put(scratch, newer, key, scratch.path(f"{older}/{INDEX}").read_bytes())
    return Damage(forgery.where, f"its index is that of {older}", says="it is of (")


@index_as_manifest.detects
def index_of_another_partition(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """Two folders that changed places, and a manifest made of what lay there then."""
    backup, one = newest(scratch), rng.randrange(2)
    keys = [segments.folder(backup.prefix, PLAIN, n) + INDEX for n in (one, 1 - one)]
    put(scratch, backup, keys[0], scratch.path(keys[1]).read_bytes())
    return Damage(f"{PLAIN}[{one}]", f"its index is that of partition {1 - one}", says="it is of (")


@index_as_manifest.detects
def records_edited(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """A count that somebody set right by hand."""
    forgery = Forgery.of(scratch, COMPACTED)
    forgery.seal(facts={"records": forgery.index.records + rng.randrange(1, 100)})
    return Damage(
        forgery.where,
        "the manifest counts more records than the index",
        says="records: its index says",
    )


@index_as_manifest.detects
def gap_hidden(scratch: Scratch[TopicArchive], _rng: Random) -> Damage:
    """A report without gaps looks better."""
    forgery = Forgery.of(scratch, TRANSACTIONAL)
    forgery.seal(facts={"gaps": {}})
    return Damage(
        forgery.where, "the manifest says that it has no gap", says="gaps: its index says"
    )


@check(
    "kafka.no-strangers",
    on=TopicArchive,
    severity="normal",
    advice="Find out who wrote it: a second archiver in one folder, or an object that no "
    "replay reads. `pipeline verify` names it too.",
)
def no_strangers(topics: TopicArchive) -> Iterator[Observation]:
    """Every object of the set belongs to a partition, and nothing lies beside them."""
    backup = topics.backup
    known = {backup.prefix + MANIFEST}
    listed = {entry.key for entry in backup.manifest.objects}
    for where, topic, partition in topics.places():
        known.add(segments.index_key(backup.prefix, topic, partition, listed))
        if where in topics.indexes:
            found = topics.indexes[where].segments
            known |= {key for each in found for key in (each.key, each.inventory_key)}
    for key in sorted(listed | set(backup.store.list(backup.prefix))):
        how = "belongs to no partition" if key in listed else "no manifest lists it"
        yield Observation(key, None if key in known else how)


@no_strangers.detects
def segment_beside(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """What an upload left that was begun twice."""
    index = Forgery.of(scratch, PLAIN, rng.randrange(2)).index
    folder = segments.folder(newest(scratch).prefix, index.topic, index.partition)
    new = segments.segment_key(folder, index.end + rng.randrange(1, 99), packed=True)
    return files.copy_as(scratch, index.segments[-1].key, new).told_as("no manifest lists it")


@no_strangers.detects
def object_of_no_partition(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """Listed and never read: nobody would miss it, nor notice what it hides."""
    backup = newest(scratch)
    key = f"{segments.folder(backup.prefix, PLAIN, 7)}{rng.randrange(100):020d}.batches"
    scratch.path(key).parent.mkdir()
    put(scratch, backup, key, rng.randbytes(50))
    return Damage(key, "the manifest lists it, no index does", says="belongs to no partition")
