"""Where a topic archive ends, and what it knows of the cluster beside the topics."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from random import Random
from typing import Any

from checks.check import Observation, check
from checks.kafka_subjects import TopicArchive
from fixtures.faults.kafka_archive import Forgery, newest, reseal
from fixtures.kafka_story import PLAIN
from fixtures.scratch import Damage, Scratch
from pipeline.errors import BackupError
from pipeline.postgres.wal.lsn import Lsn

EXPORTS = ("acls", "quotas", "scram_users")
NOBODY_HAS_IT = ("SecurityDisabledError", "UnsupportedVersionError")
"""Reasons not to export that are no loss: this cluster has no such thing."""


@check(
    "kafka.one-consistency-point",
    on=TopicArchive,
    severity="critical",
    advice="Topics and database of this archive do not fit together: run `pipeline backup topics` "
    "while PostgreSQL answers and the connector runs; a joint recovery needs that set.",
)
def one_consistency_point(topics: TopicArchive) -> Iterator[Observation]:
    """All topics end together, behind a point at which every event had been delivered."""
    told: dict[str, Any] = topics.facts.get("consistency_point") or {}
    point = told.get("point")
    decided = datetime.fromisoformat(topics.facts["decided"])
    if limit := topics.facts.get("limit"):
        yield Observation("limit", f"it ends after {limit} records of a topic, at no point")
    if not point:
        yield Observation("consistency_point", f"there is none: {told.get('reason')}")
        return
    early = f"ends were decided at {decided}, the point is of {point['time']}"
    late_enough = datetime.fromisoformat(point["time"]) <= decided
    yield Observation("decided", None if late_enough else early)
    yield Observation("confirmed_flush_lsn", _behind(told))
    for where, index in topics.indexes.items():
        other = [s for s in index.segments if s.first >= index.added and s.decided != decided]
        when = (
            f"its end was decided at {other[-1].decided}, the others' at {decided}"
            if other
            else None
        )
        yield Observation(where, when)


def _behind(told: dict[str, Any]) -> str | None:
    """Whether events before the point were missing; unknown is an error, and never sound."""
    if told.get("caught_up") is not True:
        raise BackupError(f"it is not known whether all was delivered: {told.get('reason')}")
    point = Lsn.parse(told["point"]["lsn"])
    confirmed = told.get("stored_until") or told.get("confirmed_flush_lsn")
    if confirmed is not None and Lsn.parse(confirmed) >= point:
        return None
    return f"the slot had confirmed {confirmed}, the point is at {point}"


def _point(scratch: Scratch[TopicArchive], **changes: object) -> None:
    backup = newest(scratch)
    facts = backup.manifest.model_dump()["facts"]
    facts["consistency_point"] |= changes
    reseal(scratch, backup, facts=facts)


@one_consistency_point.detects
def slot_was_behind(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """The ends were taken before the connector had delivered what the snapshot sees."""
    lsn = Lsn(0x3000148 - rng.randrange(1, 0x3000000))
    _point(scratch, confirmed_flush_lsn=str(lsn))
    return Damage("confirmed_flush_lsn", f"it is {lsn}", says="the slot had confirmed")


@one_consistency_point.detects
def ends_before_the_point(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """Topics first, database afterwards."""
    told = newest(scratch).manifest.facts
    later = datetime.fromisoformat(told["decided"]) + timedelta(seconds=rng.randrange(1, 999))
    _point(scratch, point={**told["consistency_point"]["point"], "time": later.isoformat()})
    return Damage("decided", f"the point is of {later}", says="ends were decided at")


@one_consistency_point.detects
def topic_of_another_instant(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """A second run archived one topic again, into the same set."""
    forgery = Forgery.of(scratch, PLAIN, rng.randrange(2))
    noted = forgery.inventory(3)
    earlier = noted.decided - timedelta(minutes=rng.randrange(1, 99))
    forgery.note(3, noted.model_copy(update={"decided": earlier})).seal()
    return Damage(forgery.where, f"its end is of {earlier}", says="the others' at")


@one_consistency_point.detects
def no_point_at_all(scratch: Scratch[TopicArchive], _rng: Random) -> Damage:
    """PostgreSQL did not answer, and the run went on."""
    _point(scratch, point=None, reason="PostgreSQL does not answer: connection refused")
    return Damage("consistency_point", "there is none", says="there is none")


@check(
    "kafka.permissions-exported",
    on=TopicArchive,
    severity="normal",
    advice="Give the archiver's principal DESCRIBE on the cluster (ACLs) and DESCRIBE_CONFIGS "
    "(quotas), or keep them elsewhere: after a lost broker nobody could say who may do what.",
)
def permissions_exported(topics: TopicArchive) -> Iterator[Observation]:
    """ACLs, quotas and SCRAM users are in the archive; what no protocol exports is named."""
    exports = topics.facts.get("exports", {})
    for name in EXPORTS:
        told = exports.get(name)
        problem = None
        if told is None:
            problem = "not in the archive, and nothing says why"
        elif isinstance(told, dict):
            reason = told.get("not_exported") or "without a reason"
            problem = None if reason.startswith(NOBODY_HAS_IT) else f"not exported: {reason}"
        yield Observation(name, problem)
    named = exports.get("never_exported")
    missing = "expected what no protocol exports, as passwords; found nothing"
    yield Observation("never_exported", None if named else missing)


def _exports(scratch: Scratch[TopicArchive], **changes: object) -> None:
    backup = newest(scratch)
    facts = backup.manifest.model_dump()["facts"]
    told = facts["exports"] | changes
    facts["exports"] = {name: value for name, value in told.items() if value is not None}
    reseal(scratch, backup, facts=facts)


@permissions_exported.detects
def not_authorized(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """The archiver may read topics, and not who else may."""
    name, why = rng.choice(EXPORTS), "ClusterAuthorizationFailedError: denied"
    _exports(scratch, **{name: {"not_exported": why}})
    return Damage(name, f"its export says {why}", says="not exported")


@permissions_exported.detects
def export_left_out(scratch: Scratch[TopicArchive], rng: Random) -> Damage:
    """A manifest of a tool that never asked."""
    name = rng.choice((*EXPORTS, "never_exported"))
    _exports(scratch, **{name: None})
    told = "found nothing" if name == "never_exported" else "nothing says why"
    return Damage(name, "the manifest does not tell it", says=told)
