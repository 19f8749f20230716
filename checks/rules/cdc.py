"""What the source server keeps for CDC: the slot and the publication."""

from collections.abc import Iterator
from random import Random

from psycopg import sql

from checks.check import Observation, check
from checks.subjects import BackupRepository, SourceServer
from fixtures.faults import server
from fixtures.material import SOON
from fixtures.scratch import Damage, Scratch
from pipeline.cdc.publications import Publication, find_publication
from pipeline.cdc.slots import PLUGIN, find_slot
from pipeline.postgres import base_backup
from pipeline.wait import wait_until

UNLIMITED = 20 << 30
"""Where the server keeps everything, this much is taken for what its disk bears."""
OPERATIONS = ("insert", "update", "delete", "truncate")


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
    return Damage(name, "it was dropped")


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
    return Damage(name, "its WAL was removed")


@slot_can_deliver.detects
def slot_of_another_kind(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """Recreated by hand, for a standby: the name is there and decodes nothing."""
    name = scratch.config.cdc.slot
    server.execute(
        scratch,
        sql.SQL("select pg_drop_replication_slot({})").format(name),
        sql.SQL("select pg_create_physical_replication_slot({})").format(name),
    )
    return Damage(name, "it was recreated as a physical slot")


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
    return Damage(scratch.config.cdc.slot, "nobody read it while WAL was written")


@slot_keeps_up.detects
def server_keeps_less(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """The limit was lowered to save disk space, below what the consumer needs."""
    kept = rng.randrange(4, 8)
    done = server.change_setting(scratch, "max_slot_wal_keep_size", f"{kept}MB")
    return Damage(scratch.config.cdc.slot, f"max_slot_wal_keep_size: {done.what}")


@check(
    "cdc.publication-carries-every-change",
    on=SourceServer,
    severity="blocker",
    advice="What was not published meanwhile never reaches the topics: repair the publication, "
    "then signal an incremental snapshot for the tables named here.",
)
def publication_carries_every_change(source: SourceServer) -> Iterator[Observation]:
    """The publication passes on inserts, updates, deletes and truncates of its tables, in full."""
    name = source.config.cdc.publication
    with source.connection() as connection:
        publication = find_publication(connection, name)
    if publication is None:
        yield Observation(name, "the database has no such publication")
        return
    for operation in OPERATIONS:
        silent = None if operation in publication.publish else f"{operation} is not published"
        yield Observation(name, silent)
    published = {row["name"]: row for row in source.rows(_PUBLISHED, name)}
    yield Observation(name, None if published else "it has no table")
    for table in _published_then(source) - published.keys():
        yield Observation(table, "it was published when the newest base backup was taken")
    for table, row in published.items():
        yield Observation(table, _without_key(row["identity"], has_key=row["has_key"]))


_PUBLISHED = """
    select concat_ws('.', p.schemaname, p.tablename) as name, c.relreplident as identity,
           exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary) as has_key
      from pg_publication_tables p
      join pg_class c on c.oid = format('%%I.%%I', p.schemaname, p.tablename)::regclass
     where p.pubname = %s
"""


def _published_then(source: SourceServer) -> set[str]:
    facts = BackupRepository.of(source.config).sets.latest(base_backup.KIND).manifest.facts
    noted = facts["publication"]
    return {str(table) for table in Publication.of(noted).tables} if noted else set()


def _without_key(identity: str, *, has_key: bool) -> str | None:
    """Judge a replica identity: d(efault) needs a primary key, f(ull) and i(ndex) do not."""
    if identity in "fi" or (identity == "d" and has_key):
        return None
    return "it has no replica identity: updates and deletes fail, or arrive without a key"


@publication_carries_every_change.detects
def publication_dropped(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """A restore from a logical backup that left publications out."""
    name = scratch.config.cdc.publication
    server.execute(scratch, sql.SQL("drop publication {}").format(sql.Identifier(name)))
    return Damage(name, "it was dropped")


@publication_carries_every_change.detects
def table_left_out(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """A table that was recreated, and not published again."""
    name = scratch.config.cdc.publication
    table = rng.choice(("customers", "orders"))
    change = sql.SQL("alter publication {} drop table {}")
    server.execute(scratch, change.format(sql.Identifier(name), sql.Identifier("shop", table)))
    return Damage(f"shop.{table}", "it was taken out of the publication")


@publication_carries_every_change.detects
def operation_not_published(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """A publication made for another consumer."""
    name = scratch.config.cdc.publication
    kept = ", ".join(rng.sample(OPERATIONS, rng.randrange(1, len(OPERATIONS))))
    change = sql.SQL("alter publication {} set (publish = {})")
    server.execute(scratch, change.format(sql.Identifier(name), kept))
    return Damage(name, f"it publishes only {kept}")


@publication_carries_every_change.detects
def replica_identity_removed(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """A migration that rebuilt the primary key and forgot the rest."""
    server.execute(scratch, "alter table shop.orders replica identity nothing")
    return Damage("shop.orders", "its replica identity is nothing")
