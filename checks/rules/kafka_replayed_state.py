"""Topics that a replay brought back, as a whole: their state, their range, their configuration."""

from collections.abc import Iterator
from random import Random

from checks.check import Observation, check
from checks.kafka_records import fields
from checks.kafka_subjects import ReplayedTopic
from checks.rules.kafka_replayed import looked_at, partitions_of, replayed_name, rewritten
from fixtures.faults import kafka_live
from fixtures.kafka_story import COMPACTED, PLAIN
from fixtures.scratch import Damage, Scratch
from pipeline.kafka.log.records import Record
from pipeline.kafka.replay.target_topic import RETENTION


@check(
    "kafka.replayed-folds-equal",
    on=ReplayedTopic,
    severity="blocker",
    advice="A table built from this topic has other rows: replay it again under another name. "
    "A key that is alive again was deleted before the archive: its tombstone is missing.",
)
def folds_equal(replays: ReplayedTopic) -> Iterator[Observation]:
    """A compacted topic folds to the same state as its archive: same keys, same newest values."""
    yield looked_at(replays)
    for partition in partitions_of(replays):
        if not partition.archived.index.compacted:
            continue
        then, now = partition.folds()
        for key in sorted(then.keys() | now.keys()):
            yield Observation(f"{partition}: key {key!r}", _state(then.get(key), now.get(key)))


def _state(then: bytes | None, now: bytes | None) -> str | None:
    if now == then:
        return None
    if now is None:
        return "lost: it is not in the topic"
    if then is None:
        return "resurrected: the archive ends with its tombstone"
    return "stale: the archive has another value"


@folds_equal.detects
def tombstone_dropped(scratch: Scratch[ReplayedTopic], rng: Random) -> Damage:
    """A sink that does not write records without a value."""
    return _last_of_a_key(scratch, rng, "its tombstone was left out", deleted=True).told_as(
        "resurrected: "
    )


@folds_equal.detects
def tombstone_became_empty(scratch: Scratch[ReplayedTopic], rng: Random) -> Damage:
    """An empty value is one, and no deletion."""
    what = "its tombstone has an empty value"
    return _last_of_a_key(scratch, rng, what, deleted=True, becomes=b"").told_as("resurrected: ")


@folds_equal.detects
def older_value_wins(scratch: Scratch[ReplayedTopic], rng: Random) -> Damage:
    """The newest record of a key was lost, and the one before stands."""
    return _last_of_a_key(scratch, rng, "its newest record was left out", deleted=False).told_as(
        "stale: "
    )


def _last_of_a_key(
    scratch: Scratch[ReplayedTopic],
    rng: Random,
    what: str,
    *,
    deleted: bool,
    becomes: bytes | None = None,
) -> Damage:
    """Leave out the last record of a key, or give it that value."""
    named: list[bytes] = []

    def change(held: list[Record]) -> tuple[int, list[Record]]:
        number, key = _that_counts(held, rng, deleted=deleted)
        named.append(key)
        old = held.pop(number)
        if becomes is not None:
            held.insert(number, old._replace(body=kafka_live.body(key, becomes, ())))
        return old.offset, held

    done = rewritten(scratch, COMPACTED, change, what)
    return Damage(f"{done.subject.rpartition('@')[0]}: key {named[0]!r}", done.what)


def _that_counts(held: list[Record], rng: Random, *, deleted: bool) -> tuple[int, bytes]:
    """Number and key of a record whose loss changes the state."""
    last = {fields(each.body).key: number for number, each in enumerate(held)}
    options = []
    for key, number in last.items():
        before = [
            fields(each.body).value is not None
            for each in held[:number]
            if fields(each.body).key == key
        ]
        gone = fields(held[number].body).value is None
        if key is not None and gone == deleted and (before[-1:] == [True]):
            options.append((number, key))
    return rng.choice(options)


@check(
    "kafka.replayed-range-kept",
    on=ReplayedTopic,
    severity="blocker",
    advice="Hold the retention (retention.ms and retention.bytes at -1) before anything else, "
    "then replay what is gone into another name; look at who deletes records.",
)
def range_kept(replays: ReplayedTopic) -> Iterator[Observation]:
    """The log starts where the archive does and still reaches the replay's end."""
    yield looked_at(replays)
    for partition in partitions_of(replays):
        start, end = partition.extent.start, partition.extent.high_watermark
        problem = None
        if start > partition.begin:
            problem = f"its log starts at {start}, the replay began at {partition.begin}"
        elif partition.plan.head and start != partition.plan.start:
            problem = f"its log starts at {start}, archived was {partition.plan.start}"
        elif end < partition.proven_end or (not partition.plan.dense and end < partition.plan.end):
            problem = f"it ends at {end}, the replay was proven up to {partition.plan.end}"
        yield Observation(str(partition), problem)


@range_kept.detects
def retention_ate_the_oldest(scratch: Scratch[ReplayedTopic], rng: Random) -> Damage:
    """The topic's retention counts from the records' own times, which are old."""
    name = replayed_name(scratch, PLAIN)
    until = rng.randrange(1, 15)
    kafka_live.delete_below(scratch, kafka_live.topic(scratch, name).places[0], until)
    return Damage(
        f"{name}[0]", f"records below {until} were deleted", says=f"its log starts at {until}"
    )


@range_kept.detects
def end_is_missing(scratch: Scratch[ReplayedTopic], rng: Random) -> Damage:
    """A broker died with what was acknowledged by it alone."""
    name = replayed_name(scratch, PLAIN)
    old = kafka_live.topic(scratch, name)
    kafka_live.recreate(scratch, old, len(old.partitions))
    return Damage(f"{name}[0]", f"it is empty ({rng.random():.3f})", says="it ends at 0")


@check(
    "kafka.replayed-topic-given-back",
    on=ReplayedTopic,
    severity="critical",
    advice="`pipeline restore topic --resume <recovery> --give-back-retention` gives the topic its "
    "own configuration back; set by hand whatever else differs.",
)
def given_back(replays: ReplayedTopic) -> Iterator[Observation]:
    """A replayed topic has the overrides it was archived with, and none of the replay's own."""
    yield looked_at(replays)
    for comparison in replays.comparisons:
        if comparison.superseded:
            continue
        now, then, name = comparison.topic.overrides, comparison.archived, comparison.topic.name
        for key in sorted(now.keys() | then.keys()):
            other = f"archived was {then.get(key, '(default)')}, it is {now.get(key, '(default)')}"
            why = " (held by the replay)" if comparison.held and key in RETENTION else ""
            yield Observation(
                f"{name}: {key}", None if now.get(key) == then.get(key) else other + why
            )


@given_back.detects
def retention_still_held(scratch: Scratch[ReplayedTopic], rng: Random) -> Damage:
    """Somebody meant to come back to it, and the disk fills up."""
    name, key = replayed_name(scratch, PLAIN), rng.choice(sorted(RETENTION))
    kafka_live.alter(scratch, name, {key: "-1"})
    return Damage(f"{name}: {key}", "it is -1", says="it is -1")


@given_back.detects
def compaction_not_given_back(scratch: Scratch[ReplayedTopic], rng: Random) -> Damage:
    """It was held as a topic that deletes, so that no cleaner runs."""
    name = replayed_name(scratch, COMPACTED)
    kafka_live.alter(scratch, name, {"cleanup.policy": "delete"})
    return Damage(
        f"{name}: cleanup.policy", f"it is delete ({rng.random():.3f})", says="it is delete"
    )
