"""What the source server keeps for CDC: the slot."""

from collections.abc import Iterator
from random import Random

from psycopg import sql

from checks.check import Observation, check
from checks.subjects import SourceServer
from fixtures.faults import server
from fixtures.material import SOON
from fixtures.scratch import Damage, Scratch
from fixtures.stacks.versions import major, since
from pipeline.postgres.replication.slots import PLUGIN, find_slot
from pipeline.wait import wait_until

UNLIMITED = 20 << 30
"""Where the server keeps everything, this much is taken for what its disk bears."""


@check(
    "cdc.slot-can-deliver",
    on=SourceServer,
    severity="blocker",
    advice="Changes since the slot's position are lost to CDC: stop the connector, recreate the "
    "slot and read every row again (docs/procedures.md, scenario 2) before it starts.",
)
def slot_can_deliver(source: SourceServer) -> Iterator[Observation]:
    """The replication slot exists, decodes with pgoutput, and its WAL is still there."""
    name = source.config.cdc.slot
    with source.connection() as connection:
        slot = find_slot(connection, name)
    if slot is None:
        yield Observation(name, "the server has no logical slot of that name")
        return
    other = f"expected plugin {PLUGIN}, found {slot.plugin}"
    yield Observation(name, slot.lost or (None if slot.plugin == PLUGIN else other))
    database = source.config.postgres.dbname
    elsewhere = f"it decodes database {slot.database}, expected {database}"
    yield Observation(name, None if slot.database == database else elsewhere)


@slot_can_deliver.detects
def slot_dropped(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """Somebody freed disk space."""
    name = scratch.config.cdc.slot
    server.execute(scratch, sql.SQL("select pg_drop_replication_slot({})").format(name))
    return Damage(name, "it was dropped", says="the server has no logical slot")


@slot_can_deliver.detects
def slot_lost_its_wal(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """The consumer stood still for longer than max_slot_wal_keep_size allows."""
    name = scratch.config.cdc.slot
    server.change_setting(scratch, "max_slot_wal_keep_size", "1MB")
    server.change_setting(scratch, "max_wal_size", "2MB")

    def kept() -> str | None:
        emit = "select pg_logical_emit_message(true, 'fault', repeat('x', 1000000))"
        server.execute(scratch, emit, "select pg_switch_wal()", "checkpoint")
        (row,) = scratch.copy.rows(
            "select wal_status from pg_replication_slots where slot_name = %s", name
        )
        return None if row["wal_status"] == "lost" else f"wal_status {row['wal_status']}"

    wait_until(f"loss of {name}", kept, within=SOON)
    told = "invalidated: wal_removed" if major() >= 17 else "its WAL is gone"
    return Damage(name, "its WAL was removed", says=told)


@slot_can_deliver.detects
def slot_of_another_kind(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """Recreated by hand, for a standby: the name is there and decodes nothing."""
    name = scratch.config.cdc.slot
    server.execute(
        scratch,
        sql.SQL("select pg_drop_replication_slot({})").format(name),
        sql.SQL("select pg_create_physical_replication_slot({})").format(name),
    )
    return Damage(
        name, "it was recreated as a physical slot", says="the server has no logical slot"
    )


@check(
    "cdc.slot-keeps-up",
    on=SourceServer,
    advice="Is the connector running? Its changes wait in pg_wal: restart it before the server "
    "gives the slot up, or the disk is full. docs/procedures.md, scenario 2.",
)
def slot_keeps_up(source: SourceServer) -> Iterator[Observation]:
    """What the slot's consumer has not taken yet is less than half of what the server keeps."""
    name = source.config.cdc.slot
    for row in source.rows(
        """
        select pg_current_wal_flush_lsn() - restart_lsn as waiting,
               confirmed_flush_lsn <= pg_current_wal_flush_lsn() as possible,
               pg_size_bytes(current_setting('max_slot_wal_keep_size')) as kept
          from pg_replication_slots where slot_name = %s
        """,
        name,
    ):
        limit = (row["kept"] if row["kept"] > 0 else UNLIMITED) // 2
        late = f"{row['waiting']} bytes of WAL wait for it, sound are at most {limit}"
        sound = row["waiting"] is not None and row["waiting"] <= limit
        yield Observation(name, None if sound else late)
        ahead = "its confirmed position is ahead of the server: it is of another history"
        yield Observation(name, None if row["possible"] else ahead)


@slot_keeps_up.detects
def consumer_stands_still(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """The connector is stopped, and the server works on."""
    server.change_setting(scratch, "max_slot_wal_keep_size", "40MB")
    for _ in range(rng.randrange(25, 30)):
        emit = "select pg_logical_emit_message(true, 'fault', '')"
        server.execute(scratch, emit, "select pg_switch_wal()")
    return Damage(
        scratch.config.cdc.slot,
        "nobody read it while WAL was written",
        says="bytes of WAL wait for it",
    )


@slot_keeps_up.detects
def server_keeps_less(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """The limit was lowered to save disk space, below what the consumer needs."""
    kept = rng.randrange(4, 8)
    done = server.change_setting(scratch, "max_slot_wal_keep_size", f"{kept}MB")
    return Damage(
        scratch.config.cdc.slot,
        f"max_slot_wal_keep_size: {done.what}",
        says="bytes of WAL wait for it",
    )


@check(
    "cdc.failover-slot-is-guarded",
    on=SourceServer,
    severity="normal",
    advice="Name the slots of the standbys that are there, and no other, in "
    "synchronized_standby_slots, and reload: after a failover topics would hold changes that the "
    "new primary never had, or CDC waits for a standby that is gone.",
)
def failover_slot_is_guarded(source: SourceServer) -> Iterator[Observation]:
    """A slot that standbys take over sends nothing that they lack, and waits for none that left."""
    name = source.config.cdc.slot
    with source.connection() as connection:
        slot = find_slot(connection, name)
    if slot is None:
        return
    (row,) = source.rows(
        "select coalesce(current_setting('synchronized_standby_slots', true), '') as guards"
    )
    guards = [guard.strip(' "') for guard in row["guards"].split(",") if guard.strip()]
    physical = {row["name"]: row["trouble"] for row in source.rows(_PHYSICAL)}
    ours = {source.config.repository.receiver_slot, source.config.cdc.catalogue_guard}
    standbys = sorted(physical.keys() - ours)
    open_to = f"it may be ahead of {', '.join(standbys)}: synchronized_standby_slots names none"
    ahead = slot.failover and standbys and not guards
    yield Observation(name, open_to if ahead else None)
    for guard in guards:
        trouble = physical.get(guard, "it is not there")
        waits = f"synchronized_standby_slots names it, and {trouble}: failover slots wait"
        yield Observation(guard, waits if trouble else None)


_PHYSICAL = """
    select slot_name::text as name,
           case when wal_status = 'lost' then 'its WAL is lost'
                when not active then 'no standby reads it' end as trouble
      from pg_replication_slots where slot_type = 'physical' and not temporary
"""


@failover_slot_is_guarded.detects
def nobody_waits_for_the_standby(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """A failover slot beside a standby, and a setting that was forgotten."""
    since(17, "a failover slot")
    name = scratch.config.cdc.slot
    _take_over(scratch, "standby_1")
    return Damage(name, "it became a failover slot beside standby_1", says="it may be ahead of")


@failover_slot_is_guarded.detects
def standby_removed(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """A standby that was taken down with its slot, and is waited for since."""
    standby = f"standby_{rng.randrange(100)}"
    _take_over(scratch, standby)
    server.change_setting(scratch, "synchronized_standby_slots", standby)
    server.execute(scratch, sql.SQL("select pg_drop_replication_slot({})").format(standby))
    return Damage(standby, "its slot was dropped", says="it is not there")


@failover_slot_is_guarded.detects
def standby_down(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """A standby that does not run: its slot is there, and every failover slot waits for it."""
    standby = f"standby_{rng.randrange(100)}"
    _take_over(scratch, standby)
    server.change_setting(scratch, "synchronized_standby_slots", standby)
    return Damage(standby, "nobody reads its slot", says="no standby reads it")


def _take_over(scratch: Scratch[SourceServer], standby: str) -> None:
    """Make the copy's slot one that a standby keeps up with, and the standby's beside it."""
    slot = scratch.config.cdc.slot
    make = "select pg_create_logical_replication_slot({}, 'pgoutput', failover => true)"
    server.execute(
        scratch,
        sql.SQL("select pg_drop_replication_slot({})").format(slot),
        sql.SQL(make).format(slot),
        sql.SQL("select pg_create_physical_replication_slot({}, true)").format(standby),
    )
