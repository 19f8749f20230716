"""The running cluster beside the newest archive: who may do what, and what nobody has decided."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from checks.check import Observation, check
from checks.kafka_subjects import LiveTopics
from checks.rules.kafka_topics import archived_name
from fixtures import kafka_rights
from fixtures.faults import kafka_live
from fixtures.faults.hanging import leave_hanging
from fixtures.kafka_story import PLAIN, TRANSACTIONAL, flush, producer
from fixtures.scratch import Damage, Scratch
from pipeline.errors import BackupError
from pipeline.kafka.cluster.topics import extents
from pipeline.wait import wait_until


@check(
    "kafka.permissions-as-archived",
    on=LiveTopics,
    severity="critical",
    advice="What is missing locks clients out, what is more lets others in. Set it right with "
    "kafka-acls and kafka-configs; passwords come from their own store. If it was meant, archive.",
)
def permissions_as_archived(live: LiveTopics) -> Iterator[Observation]:
    """ACLs, quotas and SCRAM users are those of the archive: none less, and none more."""
    now, then = live.permissions, live.archive.facts["exports"]
    for name in ("acls", "quotas", "scram_users"):
        unknown = [each for each in (now[name], then[name]) if isinstance(each, dict)]
        if unknown and now[name] != then[name]:
            raise BackupError(f"{name} cannot be compared: {unknown[0]}")
        yield Observation(name, None)
        if not unknown:
            for each in now[name]:
                more = "not in the archive: somebody allowed it since"
                yield Observation(_told(name, each), None if each in then[name] else more)
            for each in then[name]:
                if each not in now[name]:
                    yield Observation(_told(name, each), "archived, and not there any more")


def _told(name: str, entry: dict[str, Any]) -> str:
    return f"{name}: {', '.join(f'{key} {value}' for key, value in entry.items())}"


def _right(scratch: Scratch[LiveTopics], name: str, change: Callable[[], object]) -> Damage:
    """Change permissions, wait until it shows, and name what is new or gone."""
    kafka_live.own(scratch)
    before = scratch.copy.permissions[name]
    change()
    seen: list[dict[str, Any]] = []

    def same() -> str | None:
        now = scratch.copy.permissions[name]
        seen[:] = [*(e for e in now if e not in before), *(e for e in before if e not in now)]
        return None if seen else "nothing changed yet"

    wait_until(f"a change of {name}", same, within=kafka_rights.SOON)
    return Damage(_told(name, seen[0]), "it was added, or is gone")


@permissions_as_archived.detects
def acl_missing(scratch: Scratch[LiveTopics], _rng: Random) -> Damage:
    """Brokers that were built anew know of no ACL."""
    admin = kafka_live.admin(scratch)
    return _right(scratch, "acls", lambda: kafka_rights.drop_acl(admin, PLAIN)).told_as(
        "not there any more"
    )


@permissions_as_archived.detects
def acl_widened(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """Everybody may read, to make the restore work."""
    admin = kafka_live.admin(scratch)
    wide = kafka_rights.acl("User:*", f"c{rng.randrange(99)}")
    return _right(scratch, "acls", lambda: kafka_rights.add_acl(admin, wide)).told_as(
        "not in the archive"
    )


@permissions_as_archived.detects
def quota_missing(scratch: Scratch[LiveTopics], _rng: Random) -> Damage:
    """One client may fill all disks again."""
    kafka, user = scratch.config.kafka, kafka_rights.USER
    return _right(scratch, "quotas", lambda: kafka_rights.set_quota(kafka, user, None)).told_as(
        "not there any more"
    )


@permissions_as_archived.detects
def quota_raised(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """For one evening."""
    kafka, limit = scratch.config.kafka, float(rng.randrange(2_000_000, 9_000_000))
    change = kafka_rights.set_quota
    return _right(scratch, "quotas", lambda: change(kafka, kafka_rights.USER, limit)).told_as(
        "not in the archive"
    )


@permissions_as_archived.detects
def user_missing(scratch: Scratch[LiveTopics], _rng: Random) -> Damage:
    """Its password is in no backup, so it was not made again."""
    admin = kafka_live.admin(scratch)
    return _right(
        scratch, "scram_users", lambda: kafka_rights.drop_user(admin, kafka_rights.USER)
    ).told_as("not there any more")


@permissions_as_archived.detects
def iterations_lowered(scratch: Scratch[LiveTopics], _rng: Random) -> Damage:
    """Made again in haste: a stolen hash is guessed sooner."""
    admin = kafka_live.admin(scratch)
    user = kafka_rights.USER
    return _right(scratch, "scram_users", lambda: kafka_rights.add_user(admin, user, 4096)).told_as(
        "not in the archive"
    )


@check(
    "kafka.no-hanging-transaction",
    on=LiveTopics,
    severity="critical",
    advice="Consumers that read committed records stop there, and an archive ends there. Find its "
    "producer with `kafka-transactions.sh describe-producers`, and abort what hangs with it.",
)
def no_hanging_transaction(live: LiveTopics) -> Iterator[Observation]:
    """No transaction stays open that its coordinator does not know, or lets stand too long."""
    for where, topic, partition in live.archive.places():
        extent = live.extent(topic, partition)
        if extent is None or extent.end == extent.high_watermark:
            yield Observation(where, None)
            continue
        found = [
            f"decided up to {extent.end} of {extent.high_watermark}: a transaction of producer "
            f"{each.producer_id} from offset {each.first} on hangs: {each.why}"
            for each in live.hanging(topic, partition)
        ]
        yield Observation(where, "; ".join(found) or None)


@no_hanging_transaction.detects
def transaction_left_open(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """Its producer is gone, and the coordinator does not know of it."""
    return _hang(scratch, rng.randrange(1, 9)).told_as("hangs: no coordinator knows")


@no_hanging_transaction.detects
def open_before_many_others(scratch: Scratch[LiveTopics], rng: Random) -> Damage:
    """Others write behind it, and nobody who waits for committed records sees them."""
    damage = _hang(scratch, 1)
    plain = producer(scratch.config.kafka)
    for _ in range(rng.randrange(1, 30)):
        plain.produce(archived_name(scratch, TRANSACTIONAL), b"behind it", "key", partition=0)
    flush(plain)
    return damage.told_as("hangs: no coordinator knows")


def _hang(scratch: Scratch[LiveTopics], count: int) -> Damage:
    kafka, name = kafka_live.own(scratch), archived_name(scratch, TRANSACTIONAL)
    place = kafka_live.topic(scratch, name).places[0]
    producer_id = leave_hanging(kafka, place, count)

    def decided() -> str | None:
        extent = extents(kafka, [place])[place]
        return None if extent.end < extent.high_watermark else "nothing is open"

    wait_until(f"an open transaction in {name}", decided, within=kafka_rights.SOON)
    return Damage(str(place), f"{count} records of producer {producer_id} wait for a decision")
