"""Live topics beside their newest archive: what drifted, and what would refuse or eat a replay."""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from random import Random
from typing import Any

from confluent_kafka.admin import NewPartitions

from checks.check import Observation, check
from checks.kafka_subjects import LiveTopics
from fixtures.faults import kafka_live
from fixtures.kafka_story import COMPACTED, PLAIN, TRANSACTIONAL
from fixtures.scratch import Damage, Scratch
from pipeline.kafka.cluster.topics import Topic
from pipeline.kafka.replay import replay_journal
from pipeline.kafka.replay.claims import claims
from pipeline.kafka.replay.preflight import RECODED
from pipeline.kafka.replay.target_topic import RETENTION

FOREVER_MS = 2**63 - 1


@check(
    "kafka.topics-as-archived",
    on=LiveTopics,
    severity="critical",
    advice="Was it meant? Then run `pipeline backup topics`, so that the archive knows it too. "
    "Else set it back: a consumer or a producer relies on what the archive remembers.",
)
def topics_as_archived(live: LiveTopics) -> Iterator[Observation]:
    """Every archived topic is there as it was: id, partitions, replicas, its own configuration."""
    brought_back = replay_journal.made(live.config.repository.path)
    claimed = claims(live.config)
    for name, told in live.archive.topics.items():
        topic = live.topics.get(name)
        if topic is None:
            yield Observation(name, "the brokers do not have it")
            continue
        again = f"it was made anew: its id is {topic.topic_id}, archived was {told['topic_id']}"
        sound = str(topic.topic_id) in {told["topic_id"], *brought_back}
        yield Observation(name, None if sound else again)
        count, was = len(topic.partitions), len(told["partitions"])
        other = f"{count} partitions, archived were {was}: keys lead elsewhere"
        yield Observation(f"{name}: partitions", None if count == was else other)
        fewer = f"{topic.replication} replicas, archived were {told['replication']}"
        sound = topic.replication >= told["replication"]
        yield Observation(f"{name}: replication", None if sound else fewer)
        claim = claimed.get(name)
        held = claim is not None and claim.held and claim.topic_id == str(topic.topic_id)
        yield from _configuration(name, topic, told, RETENTION if held else ())


def _configuration(
    name: str, topic: Topic, told: dict[str, Any], held: Collection[str]
) -> Iterator[Observation]:
    """Its own settings, and the brokers' defaults that stand for those it does not have.

    What a replay holds until it is told to give it back, `held`, is as it said.
    """
    for key in sorted(topic.overrides.keys() | told["overrides"].keys()):
        now, then = topic.overrides.get(key), told["overrides"].get(key)
        was = then or f"{told['defaults'].get(key)} by default"
        found = now or f"{topic.defaults.get(key)} by default"
        same = now == then or key in held
        yield Observation(f"{name}: {key}", None if same else f"it is {found}, archived was {was}")
    for key in sorted(topic.defaults.keys() & told["defaults"].keys()):
        now, then = topic.defaults[key], told["defaults"][key]
        if now != then:
            yield Observation(f"{name}: {key}", f"brokers' default is {now}, it was {then}")


def archived_name(scratch: Scratch[LiveTopics], start: str) -> str:
    """The full name of one of the archived topics."""
    return next(name for name in scratch.copy.archive.topics if name.startswith(start))


def _set(scratch: Scratch[LiveTopics], start: str, key: str, value: str) -> Damage:
    name = archived_name(scratch, start)
    kafka_live.alter(scratch, name, {key: value})
    return Damage(f"{name}: {key}", f"it was set to {value}")


@topics_as_archived.detects
def cleanup_policy_changed(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """A topic of state became one that forgets."""
    policy = rng.choice(("delete", "compact,delete"))
    return _set(scratch, COMPACTED, "cleanup.policy", policy).told_as("archived was compact")


@topics_as_archived.detects
def retention_shortened(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """Somebody needed room on the disk."""
    return _set(scratch, PLAIN, "retention.ms", str(rng.randrange(8, 200) * 3_600_000)).told_as(
        "archived was 864000000"
    )


@topics_as_archived.detects
def time_of_append(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """Producers' times are lost from now on."""
    start = rng.choice((PLAIN, TRANSACTIONAL))
    return _set(scratch, start, "message.timestamp.type", "LogAppendTime").told_as(
        "it is LogAppendTime"
    )


@topics_as_archived.detects
def topic_recreated(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """Deleted and made again under its name: everything looks as it was."""
    name = archived_name(scratch, rng.choice((PLAIN, COMPACTED)))
    old = kafka_live.topic(scratch, name)
    kafka_live.recreate(scratch, old, len(old.partitions))
    return Damage(name, "it was deleted and made again", says="it was made anew")


@topics_as_archived.detects
def partition_added(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """More partitions for more consumers: keys lead to others now."""
    name, count = archived_name(scratch, PLAIN), rng.randrange(3, 5)
    admin = kafka_live.admin(scratch)
    admin.create_partitions([NewPartitions(name, count)])[name].result()
    return Damage(f"{name}: partitions", f"there are {count}", says="keys lead elsewhere")


@topics_as_archived.detects
def topic_deleted(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """A clean-up by name."""
    name = archived_name(scratch, rng.choice((PLAIN, COMPACTED, TRANSACTIONAL)))
    admin = kafka_live.admin(scratch)
    admin.delete_topics([name])[name].result()
    return Damage(name, "it was deleted", says="the brokers do not have it")


@check(
    "kafka.topics-durable",
    on=LiveTopics,
    severity="critical",
    advice="Set unclean.leader.election.enable to false and the replicas and min.insync.replicas "
    "to what the archive remembers; a restored topic keeps what it was restored with.",
)
def topics_durable(live: LiveTopics) -> Iterator[Observation]:
    """No topic lets a replica lead that lacks records; it can take a write from enough replicas."""
    for name, topic in live.archived_topics():
        config = topic.defaults | topic.overrides
        unclean = config.get("unclean.leader.election.enable") == "true"
        key = f"{name}: unclean.leader.election.enable"
        yield Observation(key, "it is true: acknowledged records may vanish" if unclean else None)
        wanted = int(config.get("min.insync.replicas", 1))
        more = f"it is {wanted}, the topic has {topic.replication} replicas: acks=all is refused"
        fits = wanted <= topic.replication
        yield Observation(f"{name}: min.insync.replicas", None if fits else more)
        alone = topic.replication == 1 and live.brokers > 1
        one = f"one replica, and there are {live.brokers} brokers"
        yield Observation(f"{name}: replication", one if alone else None)


@topics_durable.detects
def unclean_leaders_allowed(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """To be available again at any price, and never set back."""
    start = rng.choice((PLAIN, COMPACTED, TRANSACTIONAL))
    return _set(scratch, start, "unclean.leader.election.enable", "true").told_as(
        "acknowledged records may vanish"
    )


@topics_durable.detects
def more_replicas_asked_for_than_there_are(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """Restored with one replica and the old min.insync.replicas: nobody can write."""
    return _set(scratch, PLAIN, "min.insync.replicas", str(rng.randrange(2, 4))).told_as(
        "acks=all is refused"
    )


@check(
    "kafka.replay-would-fit",
    on=LiveTopics,
    severity="critical",
    advice="`pipeline restore topic` holds these settings while it writes, a tool that does not "
    "fails halfway. Raise them, or know that what is restored is refused or deleted again.",
)
def replay_would_fit(live: LiveTopics) -> Iterator[Observation]:
    """Live topics would take every archived batch, and keep it: size, times, retention."""
    for where, index in live.archive.indexes.items():
        topic = live.topics.get(index.topic)
        if topic is None or not index.segments:
            yield Observation(where, None)  # a replay makes the topic as it was archived
            continue
        config = topic.defaults | topic.overrides
        newest = max(segment.newest for segment in index.segments)
        yield Observation(f"{where}: max.message.bytes", _too_large(config, index.largest))
        yield Observation(f"{where}: message.timestamp.before.max.ms", _too_old(config, newest))
        told = live.archive.topics[index.topic]
        yield Observation(f"{where}: retention.ms", _eaten(config, told, newest))


def _too_large(config: dict[str, str], largest: int) -> str | None:
    limit = int(config["max.message.bytes"])
    told = f"it is {limit}, the largest archived batch has {largest} bytes"
    return told if largest + RECODED > limit else None


def _age_ms(newest: int) -> float:
    return datetime.now(UTC).timestamp() * 1000 - newest


def _too_old(config: dict[str, str], newest: int) -> str | None:
    bound = int(config.get("message.timestamp.before.max.ms", FOREVER_MS))
    if newest < 0 or config.get("message.timestamp.type") != "CreateTime":
        return None
    told = f"it is {bound}, the newest archived record is {_age_ms(newest):.0f} ms old"
    return told if _age_ms(newest) > bound else None


def _eaten(config: dict[str, str], archived: dict[str, Any], newest: int) -> str | None:
    """Whether a shorter retention than the archived one would delete even the newest record."""
    kept = int(config.get("retention.ms", -1))
    then = int((archived["defaults"] | archived["overrides"]).get("retention.ms", -1))
    if newest < 0 or kept < 0 or "delete" not in config["cleanup.policy"] or 0 <= then <= kept:
        return None
    told = f"it is {kept}, the newest archived record is {_age_ms(newest):.0f} ms old: all would go"
    return told if _age_ms(newest) > kept else None


@replay_would_fit.detects
def messages_grew_too_large(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """The limit was lowered after the large ones had been written."""
    name = archived_name(scratch, PLAIN)
    kafka_live.alter(scratch, name, {"max.message.bytes": str(rng.randrange(600, 900))})
    return Damage(
        f"{name}[0]: max.message.bytes", "it was lowered", says="the largest archived batch has"
    )


@replay_would_fit.detects
def old_times_refused(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """A bound against wrong clocks, which refuses the past as well."""
    name, bound = archived_name(scratch, PLAIN), rng.randrange(1, 1_800_000)
    kafka_live.alter(scratch, name, {"message.timestamp.before.max.ms": str(bound)})
    return Damage(
        f"{name}[0]: message.timestamp.before.max.ms",
        f"it is {bound}",
        says="the newest archived record is",
    )


@replay_would_fit.detects
def retention_eats_what_is_restored(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """A count-perfect restore that is gone within minutes."""
    name, kept = archived_name(scratch, PLAIN), rng.randrange(60_000, 1_800_000)
    kafka_live.alter(scratch, name, {"retention.ms": str(kept), "segment.ms": "604800000"})
    return Damage(f"{name}[0]: retention.ms", f"it is {kept}", says="all would go")
