"""States of connectors and their workers: what is stored where, what runs, and what was remade."""

import re

from pipeline.cdc.debezium import is_postgres
from pipeline.cdc.state.parts import Part
from pipeline.cdc.state.reading import TopicRead
from pipeline.cdc.state.states import (
    KNOWN_BETTER,
    REREAD,
    RESTART,
    RESUME,
    About,
    CannotTell,
    Gravity,
    Seen,
    Situation,
    state,
    unseen,
)

_STORED = (Part.CONNECTORS, Part.OFFSETS)
_TOPICS = (Part.CONNECTORS, Part.TOPICS)
REPEATS = (3, 7)
"""Debezium from which on a restart loses nothing by itself: dbz#76, dbz#1554."""
_WITH_SHARED_ENDS = 17_00_00


@state(
    "S09",
    "offset is stored under another key",
    gravity=Gravity.WILL_LOSE,
    risk="every row is read again, or with snapshot.mode no_data none is: a gap",
    command="PATCH the offset to the key of the present topic.prefix while {connector} is STOPPED",
    needs=_STORED,
)
def another_key(at: Situation) -> Seen | None:
    """Offsets are stored, and none under the connector's topic.prefix."""
    if not at.own.offsets or at.offset is not None:
        return None
    keys = ", ".join(str(one.partition.get("server")) for one in at.own.offsets)
    return Seen(f"stored for {keys}, its topic.prefix is {at.own.told('topic.prefix')}")


@state(
    "S10",
    "two offsets of one connector",
    gravity=Gravity.WILL_LOSE,
    risk="it may go on from the stale one",
    command="PATCH the stale one to null while {connector} is STOPPED",
    needs=_STORED,
)
def two_offsets(at: Situation) -> Seen | None:
    """Connect lists more than one source partition for the connector."""
    if len(at.own.offsets) < 2:
        return None
    return Seen("; ".join(str(one.partition) for one in at.own.offsets))


@state(
    "S11",
    "snapshot is unfinished",
    gravity=Gravity.NOTE,
    risk="it repeats from its start when it is interrupted",
    command="let it end, and never change snapshot.mode to no_data now",
    needs=_STORED,
)
def snapshotting(at: Situation) -> Seen | None:
    """The offset is of a snapshot that is not completed, or a running connector has none yet."""
    if at.offset is not None and at.offset.snapshotting:
        return Seen(f"snapshot {at.offset.offset.get('snapshot')} is in progress")
    none_yet = at.own.running and not at.own.offsets
    return Seen("it runs, and has stored no offset yet") if none_yet else None


@state(
    "S12",
    "incremental snapshot is under way",
    gravity=Gravity.NOTE,
    risk="it goes on at a stored key, and fails where the table was changed since",
    command="let it end; else signal stop-snapshot, then execute-snapshot anew",
    needs=_STORED,
)
def incremental(at: Situation) -> Seen | None:
    """The offset holds the place where an incremental snapshot goes on."""
    held = [
        key for key in (at.offset.offset if at.offset else {}) if key.startswith("incremental_")
    ]
    return Seen(f"the offset has {', '.join(held)}") if held else None


@state(
    "S14",
    "Debezium that may lose at a restart",
    gravity=Gravity.WILL_LOSE,
    risk="after an unclean restart the first change of the next transaction, and rows that share "
    "one LSN (COPY, inserts of many rows)",
    command="upgrade Debezium to 3.7; after each unclean restart compare topics with tables: "
    "pytest checks/ --config pipeline.toml -k topics-tell",
    needs=(Part.SERVER, Part.PLUGINS, Part.CONNECTORS),
)
def old_debezium(at: Situation) -> Seen | None:
    """/connector-plugins tells a version before 3.7, and the server is PostgreSQL 17 or later."""
    plugins = at.now.worker.plugins if at.now.worker else {}
    wanted = at.own.told("connector.class")
    short = (version for name, version in plugins.items() if is_postgres(name))
    version = plugins.get(wanted) or next(short, None)
    numbers = re.match(r"(\d+)\.(\d+)", version or "")
    if numbers is None:
        raise CannotTell(f"the version of {wanted} is {version}")
    old = (int(numbers[1]), int(numbers[2])) < REPEATS
    shared = at.server.version >= _WITH_SHARED_ENDS
    told = f"Debezium {version} with PostgreSQL {at.server.version // 10_000}"
    return Seen(told) if old and shared else None


@state(
    "S37",
    "connector is gone, its offset lives",
    gravity=Gravity.WILL_LOSE,
    risk="WAL is kept until the server gives the slot up; a namesake would go on from the offset",
    command=REREAD
    + ", which makes it again; was it removed on purpose: pipeline backup cdc --gone "
    "{connector}",
    needs=(Part.CONNECTORS,),
)
def connector_gone(at: Situation) -> Seen | None:
    """An earlier set or connect.connectors names it, and Connect has no such connector."""
    if at.now.connector(at.own.name) is not None:
        return None
    slot = f"its slot {at.own.slot} is {'there' if at.slot else 'gone'}" if at.own.config else ""
    return Seen(f"Connect has no such connector; {slot or 'no set tells what it reads'}")


@state(
    "S38",
    "configuration has changed",
    gravity=Gravity.NOTE,
    risk="as changed",
    command="compare, and PUT the settings by name where the change was not meant",
    needs=(Part.CONNECTORS,),
    earlier=True,
)
def drifted(at: Situation) -> Seen | None:
    """Settings, or digests of secrets, differ from those of the earlier set."""
    if (was := at.earlier) is None:
        return None
    then, now = was.config | was.digests, at.own.config | at.own.digests
    changed = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    return Seen(f"changed since the earlier set: {', '.join(changed)}") if changed else None


@state(
    "S39",
    "connector does not stream",
    gravity=Gravity.WILL_LOSE,
    risk="its slot keeps WAL: the disk fills, or the server gives the slot up",
    command=RESTART,
    needs=(Part.CONNECTORS,),
)
def not_streaming(at: Situation) -> Seen | None:
    """A task is FAILED or there is none, while the connector says RUNNING; or it is stopped."""
    own = at.own
    if own.running:
        return None
    if own.state in {"STOPPED", "PAUSED"}:
        return Seen(f"it is {own.state}: somebody did that", command=RESUME)
    failed = [f"task {t.id} is {t.state} {t.cause}" for t in own.tasks if t.state != "RUNNING"]
    less = f"{len(own.tasks)} of {max(1, own.wanted)} tasks have a worker"
    return Seen(f"it is {own.state}, {'; '.join(failed) or less}".rstrip())


@state(
    "S40",
    "topics of Connect are damaged",
    about=About.WORKERS,
    gravity=Gravity.WILL_LOSE,
    risk="offsets and configurations are deleted by age: S02, S09, S11 at the next start",
    command="kafka-configs --alter --entity-type topics --entity-name TOPIC --add-config "
    "cleanup.policy=compact; one that was remade: restore it with all workers down",
)
def internal_topics(at: Situation) -> Seen | None:
    """cleanup.policy is not compact, or it is another topic, or a shorter one, than it was."""
    told = [
        f"{topic.name} has cleanup.policy {topic.policy}"
        for topic in at.now.internal_topics
        if topic.policy != "compact"
    ]
    there = {topic.name: topic for topic in at.now.internal_topics}
    unread = at.now.misses((Part.INTERNAL_TOPICS,), at.now.asked.internal_topics)
    for was in at.before.internal_topics if at.before else ():
        if was.name in there:
            told += _remade(was, there[was.name])
        elif any(one.name == was.name for one in unread):
            told.append(f"{was.name} was there in the earlier set, and is not")
    if not told and unread:
        raise CannotTell("; ".join(map(str, unread)))
    if not told and at.before is None:
        raise CannotTell("no earlier set to compare with: pipeline backup cdc")
    return Seen("; ".join(told)) if told else None


def _remade(was: TopicRead, now: TopicRead | None) -> list[str]:
    if now is None:
        return [f"{was.name} is gone"]
    if was.topic_id != now.topic_id:
        return [f"{was.name} was made again, it ends at {now.records:,} and did at {was.records:,}"]
    shorter = [n for n, end in was.ends.items() if now.ends.get(n, 0) < end]
    return [f"{was.name}{shorter} ends before where it did"] if shorter else []


def _events_remade(at: Situation) -> str:
    if at.before is None:
        return ""
    then = [topic for name in at.own.topics if (topic := at.before.topic(name)) is not None]
    return "; ".join(line for was in then for line in _remade(was, at.now.topic(was.name)))


@state(
    "S41",
    "event topic was remade under a sound pair",
    gravity=Gravity.LOSES,
    risk="all older events",
    command="pipeline recover topics --plan: the archive first, then every row read again",
    needs=_TOPICS,
    earlier=True,
)
def topic_remade(at: Situation) -> Seen | None:
    """A topic that the connector wrote has another id than in the earlier set, or is gone."""
    told = "" if at.own.routes_outbox else _events_remade(at)
    return Seen(told) if told else None


@state(
    "S43",
    "topic of an outbox was lost",
    gravity=Gravity.LOSES,
    risk="events since the last archive of the topic: their rows are deleted, no snapshot brings "
    "them back",
    command="pipeline recover topics --plan: the archive is all there is",
    needs=_TOPICS,
    earlier=True,
)
def outbox_lost(at: Situation) -> Seen | None:
    """As S41, and the connector routes an outbox (EventRouter)."""
    told = _events_remade(at) if at.own.routes_outbox else ""
    return Seen(told) if told else None


unseen(
    "S35",
    "placeholder of TOAST stored for a value",
    risk="consumers overwrite the value with the placeholder",
    command="read those keys again; REPLICA IDENTITY FULL, or the reselect post-processor",
    elsewhere="A value equals unavailable.value.placeholder; no reading of positions shows values.",
)
unseen(
    "S42",
    "topic holds more than the table",
    risk="phantoms: rows that consumers see, and no table has",
    command=KNOWN_BETTER,
    elsewhere="The check cdc.topics-tell-every-row folds the topic and compares it with the table.",
)
unseen(
    "S44",
    "schema ids are foreign",
    risk="records that nobody can read",
    command="bring the registry back first",
    elsewhere="Ids in the records are held against the registry before a recovery lets clients in.",
)
