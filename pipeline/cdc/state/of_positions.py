"""States of the pair: a stored offset, its slot, and the history that both belong to.

Debezium's own checks compare LSNs. After a point-in-time recovery the same LSN names other changes,
so the history is asked first. From PostgreSQL 15 on the server starts at the slot's position
without an error where the offset is older: what lies between is never sent (START_REPLICATION).
"""

from pipeline.cdc.state.parts import Part
from pipeline.cdc.state.states import (
    KNOWN_BETTER,
    REREAD,
    CannotTell,
    Gravity,
    Seen,
    Situation,
    state,
)

_PAIR = (Part.SERVER, Part.SLOTS, Part.CONNECTORS, Part.OFFSETS)
BOTH = "connector_and_driver"


@state(
    "S01",
    "slot gone, offset there",
    gravity=Gravity.LOSES,
    risk="what was committed since the offset; offset.mismatch.strategy=trust_slot or "
    "trust_greater_lsn go on over it in silence",
    command=REREAD,
    needs=_PAIR,
)
def slot_gone(at: Situation) -> Seen | None:
    """The server has no slot of the connector's name, and an offset is stored."""
    if at.slot is not None or (offset := at.delivered) is None:
        return None
    return Seen(
        f"there is no slot {at.own.slot!r}, and the offset is {offset}",
        max(0, at.server.flush_lsn - offset),
    )


@state(
    "S02",
    "offset gone, topics full",
    gravity=Gravity.LOSES,
    risk="rows that were deleted meanwhile stay in the topics, every other one comes a second time",
    command=REREAD,
    needs=(*_PAIR, Part.TOPICS),
)
def offset_gone(at: Situation) -> Seen | None:
    """No offset is stored, no task runs, and topics that the connector wrote hold records."""
    full = [topic for name in at.own.topics if (topic := at.now.topic(name)) and topic.records]
    if at.own.offsets or at.own.running or not full:
        return None
    slot = "its slot is there" if at.slot else "its slot is gone as well"
    records = sum(topic.records for topic in full)
    return Seen(f"it has no offset, {slot}, and {len(full)} of its topics end at {records:,}")


@state(
    "S03",
    "slot begins ahead of the offset",
    gravity=Gravity.LOSES,
    risk="what lies between offset and slot; the connector refuses to start",
    command=REREAD,
    needs=_PAIR,
)
def slot_begins_later(at: Situation) -> Seen | None:
    """The slot's restart_lsn is greater than the offset: it was made again later."""
    begins = at.slot.restart_lsn if at.slot else None
    if at.slot is None or begins is None or (offset := at.delivered) is None or begins <= offset:
        return None
    told = f"the slot begins at {begins}, the offset is {offset}"
    return _moved_back(at, told, Gravity.WILL_LOSE) or Seen(told, begins - offset)


@state(
    "S04",
    "slot ahead of the offset",
    gravity=Gravity.LOSES,
    risk="what was published between the two is never sent, and nothing says so",
    command=REREAD,
    needs=_PAIR,
)
def slot_ahead(at: Situation) -> Seen | None:
    """restart_lsn <= offset < confirmed_flush_lsn, and only the connector confirms."""
    found = _ahead(at)
    if found is None or at.own.told("lsn.flush.mode") == BOTH:
        return None
    return _moved_back(at, found.said, Gravity.NOTE) or found


@state(
    "S05",
    "slot ahead of the offset, by the driver",
    gravity=Gravity.NOTE,
    risk="nothing while the driver confirms only what holds nothing for the connector",
    command="nothing, while heartbeats run: heartbeat.interval.ms of {connector}",
    needs=_PAIR,
)
def slot_ahead_by_the_driver(at: Situation) -> Seen | None:
    """As S04, with lsn.flush.mode=connector_and_driver."""
    return _ahead(at) if at.own.told("lsn.flush.mode") == BOTH else None


def _ahead(at: Situation) -> Seen | None:
    if at.slot is None or at.slot.lost or (offset := at.delivered) is None:
        return None
    begins, confirmed = at.slot.restart_lsn, at.slot.confirmed_flush_lsn
    if begins is None or confirmed is None or not begins <= offset < confirmed:
        return None
    told = f"slot ahead of the offset: it has confirmed {confirmed}, the offset is {offset}"
    return Seen(told, confirmed - offset)


def _moved_back(at: Situation, told: str, gravity: Gravity) -> Seen | None:
    """Where an earlier set has a later offset of this history: all of it had been delivered."""
    confirmed = at.slot.confirmed_flush_lsn if at.slot else None
    was = at.earlier.lsn if at.earlier and at.earlier.history == at.server.history else None
    if was is None or confirmed is None or was < confirmed or at.own.history != at.server.history:
        return None
    return Seen(
        f"{told}; an earlier set has {was}: the offset was moved back, and nothing is skipped",
        gravity=gravity,
        risk="nothing that was not delivered before",
        command="PATCH the offset of {connector} back to " + str(was) + " while it is STOPPED",
    )


@state(
    "S06",
    "offset ahead of the server",
    gravity=Gravity.LOSES,
    risk="everything is dropped as delivered until the WAL passes the offset; trust_offset moves "
    "the slot over what waits",
    command=REREAD,
    needs=_PAIR,
)
def offset_ahead(at: Situation) -> Seen | None:
    """The offset is greater than the end of the server's WAL."""
    if (offset := at.delivered) is None or offset <= (end := at.server.flush_lsn):
        return None
    return Seen(f"offset ahead of the server: it is {offset}, the WAL ends at {end}", offset - end)


@state(
    "S07",
    "offset of another timeline",
    gravity=Gravity.LOSES,
    risk="as S06, and what the abandoned timeline wrote stays in the topics",
    command=REREAD,
    needs=_PAIR,
    earlier=True,
)
def other_timeline(at: Situation) -> Seen | None:
    """An earlier set knows the offset from another timeline of this server."""
    told = _history(at)
    here = at.server.history
    if told is None or told == here or told[0] != here[0]:
        return None
    return Seen(f"its offset is of timeline {told[1]}, the server is on timeline {here[1]}")


@state(
    "S08",
    "offset of another cluster",
    gravity=Gravity.LOSES,
    risk="everything: the address leads to another server",
    command="look at database.hostname of {connector} first; then " + REREAD,
    needs=_PAIR,
    earlier=True,
)
def other_cluster(at: Situation) -> Seen | None:
    """An earlier set knows the offset from a server with another system identifier."""
    told, here = _history(at), at.server.history
    if told is None or told[0] == here[0]:
        return None
    return Seen(f"its offset is of system identifier {told[0]}, the server is {here[0]}")


def _history(at: Situation) -> tuple[str, int] | None:
    if at.own.offsets and at.own.history is None:
        raise CannotTell(f"of which history the offset of {at.own.name} is, is not known")
    return at.own.history


@state(
    "S13",
    "offset came back after its deletion",
    gravity=Gravity.LOSES,
    risk="as S04 or S06: the connector goes on from where it was before the deletion",
    command=KNOWN_BETTER,
    needs=_PAIR,
    earlier=True,
)
def offset_came_back(at: Situation) -> Seen | None:
    """The earlier set has no offset, and the one that is stored now is of a commit before it."""
    stored = at.offset.offset.get("ts_usec") if at.offset else None
    none_then = at.earlier is not None and at.before is not None and not at.earlier.offsets
    if not none_then or at.before is None or not isinstance(stored, int):
        return None
    taken = int(at.before.taken.timestamp() * 1e6)
    told = "its offset is of a commit before the earlier set, which has none"
    return Seen(told) if stored < taken else None


@state(
    "S15",
    "connector searches and sends nothing",
    gravity=Gravity.WILL_LOSE,
    risk="everything waits until a restart, and WAL with it",
    command="PATCH the offset of {connector} back to a commit while it is STOPPED, then resume it",
    needs=(*_PAIR, Part.TOPICS),
    earlier=True,
)
def never_found(at: Situation) -> Seen | None:
    """Since the earlier set the slot is read and confirms, and offset and topics stand still."""
    slot, then, was = at.slot, at.slot_before, at.earlier
    if slot is None or then is None or was is None or at.before is None or at.delivered is None:
        return None
    if not (slot.active and at.own.running and was.lsn == at.delivered):
        return None
    if (slot.confirmed_flush_lsn or 0) <= (then.confirmed_flush_lsn or 0):
        return None
    stands = all(at.now.topic(name) == at.before.topic(name) for name in at.own.topics)
    told = f"the slot went on to {slot.confirmed_flush_lsn}, offset and topics stand still"
    return Seen(told) if stands else None


@state(
    "S24",
    "slot was advanced by hand",
    gravity=Gravity.LOSES,
    risk="the stretch that it was advanced over",
    command=KNOWN_BETTER,
    needs=_PAIR,
    earlier=True,
)
def advanced_by_hand(at: Situation) -> Seen | None:
    """confirmed_flush_lsn grew beyond an offset that is the same as in the earlier set."""
    slot, then, was = at.slot, at.slot_before, at.earlier
    if slot is None or slot.active or then is None or was is None or at.delivered is None:
        return None
    confirmed, before = slot.confirmed_flush_lsn, then.confirmed_flush_lsn
    if confirmed is None or before is None or was.lsn != at.delivered:
        return None
    if not confirmed > max(before, at.delivered):
        return None
    told = f"nobody reads it, and it went from {before} to {confirmed}; the offset is {was.lsn}"
    return Seen(told, confirmed - max(before, at.delivered))


@state(
    "S31",
    "slot is of before the restore",
    gravity=Gravity.LOSES,
    risk="it looks sound, and its position names other changes: as S07",
    command="drop slot {slot} once its reader has stopped; then " + KNOWN_BETTER,
    needs=_PAIR,
    earlier=True,
)
def slot_of_before(at: Situation) -> Seen | None:
    """The WAL ends before that of the earlier set, or the history is another, and the slot stayed.

    A snapshot of a volume, restored, brings slots back that nothing else would.
    """
    slot, then = at.slot, at.slot_before
    was = at.before.server if at.before else None
    if slot is None or then is None or was is None:
        return None
    if was.history == at.server.history:
        went_back = at.server.flush_lsn < was.flush_lsn
        told = f"the WAL ends at {at.server.flush_lsn}, and ended at {was.flush_lsn} before"
        return Seen(told, was.flush_lsn - at.server.flush_lsn) if went_back else None
    kept = (slot.restart_lsn, slot.confirmed_flush_lsn)
    same = kept == (then.restart_lsn, then.confirmed_flush_lsn)
    return Seen(f"the history is another, the slot still stands at {kept[1]}") if same else None
