"""States of a slot: invalidated, about to be, held, or of another kind than its connector reads."""

from datetime import timedelta

from pipeline.cdc.state.parts import Part
from pipeline.cdc.state.reading import SeenSlot
from pipeline.cdc.state.states import REREAD, RESTART, About, Gravity, Seen, Situation, state

PASSING = timedelta(minutes=5)
"""For as long a transaction may hold a slot without anything being wrong."""
_SLOT = (Part.SERVER, Part.SLOTS)
_READ = (*_SLOT, Part.CONNECTORS)
_NAMED = {"idle_timeout", "wal_level_insufficient", "rows_removed"}


def _lost(at: Situation, told: str) -> Seen:
    confirmed = at.slot.confirmed_flush_lsn if at.slot else None
    return Seen(told, None if confirmed is None else max(0, at.server.flush_lsn - confirmed))


def _invalidated(at: Situation, reason: str) -> Seen | None:
    found = at.slot is not None and at.slot.invalidation_reason == reason
    return _lost(at, f"invalidated: {reason}") if found else None


@state(
    "S16",
    "WAL of the slot was removed",
    about=About.SLOT,
    gravity=Gravity.LOSES,
    risk="what was committed since its confirmed position",
    command=REREAD,
    needs=_SLOT,
)
def wal_removed(at: Situation) -> Seen | None:
    """invalidation_reason wal_removed (17 on), else wal_status lost or no restart_lsn."""
    slot = at.slot
    if slot is None or slot.pending or _conflicting(slot) or slot.invalidation_reason in _NAMED:
        return None
    return _lost(at, slot.lost) if slot.lost and slot.slot_type == "logical" else None


@state(
    "S17",
    "slot is about to lose its WAL",
    about=About.SLOT,
    gravity=Gravity.WILL_LOSE,
    risk="S16 at the next checkpoint",
    command="start what reads {slot}, or raise max_slot_wal_keep_size and reload, now",
    needs=_SLOT,
)
def unreserved(at: Situation) -> Seen | None:
    """wal_status unreserved, or safe_wal_size is used up."""
    slot = at.slot
    if slot is None or slot.lost:
        return None
    spent = slot.safe_wal_size is not None and slot.safe_wal_size <= 0
    told = f"wal_status {slot.wal_status}, safe_wal_size {slot.safe_wal_size}"
    return Seen(told) if spent or slot.wal_status == "unreserved" else None


@state(
    "S18",
    "slot was idle for too long",
    about=About.SLOT,
    gravity=Gravity.LOSES,
    risk="what was committed since its confirmed position, though the WAL may be there",
    command=REREAD + "; idle_replication_slot_timeout must be longer than the longest stop",
    needs=_SLOT,
)
def idle_timeout(at: Situation) -> Seen | None:
    """invalidation_reason idle_timeout (18 on)."""
    return _invalidated(at, "idle_timeout")


@state(
    "S19",
    "wal_level was lowered",
    about=About.SLOT,
    gravity=Gravity.LOSES,
    risk="what was committed since its confirmed position",
    command="set wal_level = logical and restart; then " + REREAD,
    needs=_SLOT,
)
def wal_level_insufficient(at: Situation) -> Seen | None:
    """invalidation_reason wal_level_insufficient (16 on)."""
    return _invalidated(at, "wal_level_insufficient")


@state(
    "S20",
    "slot on a standby conflicted with recovery",
    about=About.SLOT,
    gravity=Gravity.LOSES,
    risk="what was committed since its confirmed position",
    command="set hot_standby_feedback = on; then " + REREAD,
    needs=_SLOT,
)
def rows_removed(at: Situation) -> Seen | None:
    """invalidation_reason rows_removed (17 on), or conflicting (16)."""
    if at.slot is not None and not at.slot.invalidation_reason and at.slot.conflicting:
        return _lost(at, "it conflicted with recovery")
    return _invalidated(at, "rows_removed")


def _conflicting(slot: SeenSlot) -> bool:
    return not slot.invalidation_reason and bool(slot.conflicting)


@state(
    "S21",
    "slot is still being created",
    about=About.SLOT,
    gravity=Gravity.NOTE,
    risk="nothing yet",
    command="end the oldest transaction; on a standby: SELECT pg_log_standby_snapshot() on its "
    "primary",
    needs=_SLOT,
)
def being_created(at: Situation) -> Seen | None:
    """confirmed_flush_lsn is null: somebody waits for it still, or its creation never ended."""
    slot = at.slot
    if slot is None or slot.slot_type != "logical" or slot.confirmed_flush_lsn is not None:
        return None
    if slot.pending:
        return Seen("its creation waits for open transactions to end")
    if slot.lost:
        return None
    return Seen("its creation never came to an end, and nobody waits for it: make it again")


@state(
    "S22",
    "a stranger reads the slot",
    gravity=Gravity.LOSES,
    risk="what the other one got, the connector never sees",
    command="stop the other one; compare slot and offset again before {connector} starts",
    needs=(*_READ, Part.OFFSETS),
)
def stranger(at: Situation) -> Seen | None:
    """Its reader's application_name is none of Debezium's, or two connectors have the slot."""
    slot = at.slot
    if slot is None:
        return None
    if slot.active and slot.reader and "debezium" not in slot.reader.lower():
        return Seen(f"{slot.reader} reads it, process {slot.active_pid}")
    others = [
        each.name
        for each in at.now.connectors
        if (each.slot, each.place) == (slot.name, at.own.place) and each.name != at.own.name
    ]
    return Seen(f"it is the slot of {', '.join(others)} as well") if others else None


@state(
    "S23",
    "slot of another kind",
    gravity=Gravity.LOSES,
    risk="everything since the slot was replaced",
    command="drop slot {slot} once its reader has stopped; then " + REREAD,
    needs=_READ,
)
def another_kind(at: Situation) -> Seen | None:
    """It is physical or temporary, or of another plugin or database than the connector reads."""
    slot = at.slot
    if slot is None:
        return None
    if slot.slot_type != "logical" or slot.temporary:
        return Seen(f"it is {'temporary' if slot.temporary else slot.slot_type}")
    plugin, database = at.own.config.get("plugin.name", "decoderbufs"), at.own.database
    if slot.plugin != plugin:
        return Seen(f"its plugin is {slot.plugin}, the connector's {plugin}")
    other = database and "${" not in database and slot.database != database
    return (
        Seen(f"it is of database {slot.database}, the connector of {database}") if other else None
    )


@state(
    "S25",
    "nobody reads the slot",
    about=About.SLOT,
    gravity=Gravity.WILL_LOSE,
    risk="WAL is kept for it: the disk fills, or the server gives the slot up",
    command="start what reads {slot}; drop it only once its reader is gone for good",
    needs=_SLOT,
)
def inactive(at: Situation) -> Seen | None:
    """The slot is sound and not active."""
    slot = at.slot
    if slot is None or slot.active or slot.lost or slot.slot_type != "logical":
        return None
    begins = slot.restart_lsn
    kept = 0 if begins is None else max(0, at.server.flush_lsn - begins)
    since = f" since {slot.inactive_since}" if slot.inactive_since else ""
    left = "" if slot.safe_wal_size is None else f", {slot.safe_wal_size:,} bytes are left"
    return Seen(f"nobody reads it{since}; {kept:,} bytes of WAL are kept for it{left}")


@state(
    "S26",
    "slot is read, and stands still",
    about=About.SLOT,
    gravity=Gravity.WILL_LOSE,
    risk="WAL is kept for it: the disk fills, or the server gives the slot up",
    command="publish the heartbeat table; end the longest transaction; else " + RESTART,
    needs=_SLOT,
    earlier=True,
)
def stands_still(at: Situation) -> Seen | None:
    """Read then and now, with the same restart_lsn, minutes and a segment of WAL between."""
    slot, then = at.slot, at.slot_before
    was = at.before.server if at.before else None
    if slot is None or then is None or was is None or slot.restart_lsn is None:
        return None
    grown = at.server.flush_lsn - was.flush_lsn
    soon = at.before is not None and at.now.taken - at.before.taken < PASSING
    moved = soon or slot.restart_lsn != then.restart_lsn or was.history != at.server.history
    if moved or not (slot.active and then.active) or grown < at.server.segment_bytes:
        return None
    return Seen(f"it stands at {slot.restart_lsn}, and {grown:,} bytes of WAL were written")


@state(
    "S28",
    "failover slot is not taken over",
    about=About.SLOT,
    gravity=Gravity.WILL_LOSE,
    risk="S01 after a failover",
    command="drop the leftover of that name on the standby, and look at sync_replication_slots",
    needs=_SLOT,
)
def not_synced(at: Situation) -> Seen | None:
    """On a standby: failover is set, and it is temporary, not synced, or skipped with a reason."""
    slot = at.slot
    if slot is None or not at.server.in_recovery or not slot.failover:
        return None
    skipped = slot.slotsync_skip_reason not in {None, "none"}
    if slot.synced and not slot.temporary and not skipped:
        return None
    return Seen(f"synced {slot.synced}, temporary {slot.temporary}: {slot.slotsync_skip_reason}")


@state(
    "S29",
    "failover slot is not guarded",
    about=About.SERVER,
    gravity=Gravity.WILL_LOSE,
    risk="after a failover topics are ahead of the new primary",
    command="ALTER SYSTEM SET synchronized_standby_slots = …; SELECT pg_reload_conf()",
    needs=_SLOT,
)
def unguarded(at: Situation) -> Seen | None:
    """Failover slots beside standbys, and synchronized_standby_slots names none."""
    failover = [slot.name for slot in at.now.slots if slot.failover]
    standbys = [
        slot.name
        for slot in at.now.slots
        if slot.slot_type == "physical"
        and not slot.temporary
        and slot.name != at.now.asked.receiver_slot
    ]
    if at.server.in_recovery or at.server.guards or not failover or not standbys:
        return None
    return Seen(f"{', '.join(failover)} may be ahead of {', '.join(standbys)}")


@state(
    "S30",
    "failover slots wait for a standby that is gone",
    about=About.SERVER,
    gravity=Gravity.WILL_LOSE,
    risk="CDC stalls, and WAL is kept",
    command="take it out: ALTER SYSTEM SET synchronized_standby_slots = …; SELECT pg_reload_conf()",
    needs=_SLOT,
)
def waits_for_nobody(at: Situation) -> Seen | None:
    """synchronized_standby_slots names a slot that is not there, lost, or read by nobody."""
    there = {s.name: s for s in at.now.slots if s.slot_type == "physical"}
    for guard in at.server.guards:
        found = there.get(guard)
        if found is None or found.wal_status == "lost" or not found.active:
            trouble = "is not there" if found is None else "has no standby behind it"
            return Seen(f"synchronized_standby_slots names {guard}, which {trouble}")
    return None
