"""What holds a running server back until somebody ends it: slots and prepared transactions."""

from collections.abc import Iterator
from datetime import timedelta
from random import Random
from typing import Any

from crc32c import crc32c
from psycopg import sql

from checks.check import Observation, check
from checks.subjects import SourceServer
from fixtures.faults import server
from fixtures.material import SOON
from fixtures.scratch import Damage, Scratch
from pipeline.postgres.replication import guard
from pipeline.postgres.server.prepared import prepared_transactions
from pipeline.postgres.server.server import LocalServer
from pipeline.postgres.server.session import connect
from pipeline.wait import wait_until

UNLIMITED = 20 << 30
"""Where the server keeps everything, this much is taken for what its disk bears."""
FORGOTTEN = timedelta(hours=1)
"""A coordinator that lives ends its prepared transactions within seconds."""
_SLOTS = """
    select slot_name as name, active, wal_status = 'lost' as lost,
           coalesce(pg_current_wal_flush_lsn() - restart_lsn, 0)::bigint as held,
           pg_size_bytes(current_setting('max_slot_wal_keep_size')) as kept,
           coalesce(age(catalog_xmin), 0) as age,
           current_setting('autovacuum_freeze_max_age')::int / 2 as bearable
      from pg_replication_slots
     where not temporary and slot_name <> all (%s) order by 1
"""


@check(
    "postgres.no-slot-forgotten",
    on=SourceServer,
    advice="Whose is it? Start its reader again, or `select pg_drop_replication_slot(…)`: the disk "
    "fills with WAL until then, and vacuum is held back by a logical one. A catalogue guard moves "
    "on with `pipeline backup base`, where cdc.catalogue_guard names it; else drop it.",
)
def no_slot_forgotten(source: SourceServer) -> Iterator[Observation]:
    """No replication slot beside those of this pipeline is lost, or holds much for nobody."""
    config = source.config
    yield Observation("pg_replication_slots", None)
    for row in source.rows(_SLOTS, [config.cdc.slot, config.repository.receiver_slot]):
        limit = (row["kept"] if row["kept"] > 0 else UNLIMITED) // 4
        told = None
        if row["lost"]:
            told = "its WAL was removed: nobody can read it any more"
        elif not row["active"] and row["held"] > limit:
            told = f"nobody reads it, and it holds {row['held']:,} bytes of WAL"
        elif not row["active"] and row["age"] > row["bearable"]:
            told = f"it holds dead rows of the catalogues for {row['age']:,} transactions"
        yield Observation(row["name"], told)


def _abandoned(scratch: Scratch[SourceServer], rng: Random) -> str:
    """Make a slot that nobody reads, and write more than a quarter of what the server keeps."""
    name = f"standby_{rng.randrange(100)}"
    make = "select pg_create_physical_replication_slot({}, true)"
    server.execute(scratch, sql.SQL(make).format(name))
    server.change_setting(scratch, "max_slot_wal_keep_size", "40MB")
    for _ in range(rng.randrange(12, 15)):
        emit = "select pg_logical_emit_message(true, 'fault', '')"
        server.execute(scratch, emit, "select pg_switch_wal()")
    return name


@no_slot_forgotten.detects
def slot_of_a_standby_that_is_gone(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """A standby was taken down, and its slot was left to the primary."""
    return Damage(
        _abandoned(scratch, rng),
        "nobody reads it while WAL is written",
        says="nobody reads it, and it holds",
    )


@no_slot_forgotten.detects
def slot_that_lost_its_wal(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """Its reader stayed away for too long; what comes back will find nothing."""
    name = _abandoned(scratch, rng)
    server.change_setting(scratch, "max_slot_wal_keep_size", "1MB")
    server.change_setting(scratch, "max_wal_size", "2MB")

    def kept() -> str | None:
        emit = "select pg_logical_emit_message(true, 'fault', '')"
        server.execute(scratch, emit, "select pg_switch_wal()", "checkpoint")
        query = "select wal_status from pg_replication_slots where slot_name = %s"
        (row,) = scratch.copy.rows(query, name)
        return None if row["wal_status"] == "lost" else f"wal_status {row['wal_status']}"

    wait_until(f"loss of {name}", kept, within=SOON)
    return Damage(name, "its WAL was removed", says="nobody can read it any more")


@no_slot_forgotten.detects
def guard_that_no_backup_moves(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """Base backups stopped, or no longer name it: the catalogues swell, and are never frozen."""
    name = f"guard_{rng.randrange(100)}"
    server.change_setting(scratch, "autovacuum_freeze_max_age", "100000")
    server.while_stopped(scratch, lambda _: None)
    with connect(scratch.config.postgres, autocommit=True) as connection:
        guard.hold(connection, scratch.config.postgres, name, guard.current(connection))
    server.execute(scratch, _MANY_TRANSACTIONS)
    return Damage(name, "50,000 transactions went by", says="holds dead rows of the catalogues for")


_MANY_TRANSACTIONS = """
    do $$ begin
        create temporary table passing (number int) on commit drop;
        for number in 1 .. 51000 loop
            begin
                insert into passing values (number);
            exception when others then raise;
            end;
        end loop;
    end $$
"""


@check(
    "postgres.no-prepared-transaction-forgotten",
    on=SourceServer,
    advice="It keeps its locks, holds vacuum back, and no slot can be made: neither digests nor a "
    "new CDC slot. Ask its coordinator, then COMMIT PREPARED or ROLLBACK PREPARED it.",
)
def no_prepared_transaction_forgotten(source: SourceServer) -> Iterator[Observation]:
    """No prepared transaction of any database waits for its end since long."""
    yield Observation("pg_prepared_xacts", None)
    with source.connection() as connection:
        for one in prepared_transactions(connection):
            yield Observation(one.gid, str(one) if one.age > FORGOTTEN else None)


# TwoPhaseFileHeader (twophase.c): magic, length, xid, database, then when it was prepared; the
# file ends with its checksum
_PREPARED_AT = slice(16, 24)
_CHECKSUM = 4


def _prepared_long_ago(scratch: Scratch[Any], ago: timedelta, database: str | None) -> str:
    """Prepare a transaction, and have its file say that this was long ago."""
    server.change_setting(scratch, "max_prepared_transactions", "4")
    server.while_stopped(scratch, lambda _: None)
    gid = f"order-{ago.days}"
    server.prepare(scratch, gid, database)

    def age(own: LocalServer) -> None:
        (path,) = (own.data / "pg_twophase").iterdir()
        content = bytearray(path.read_bytes())
        prepared = int.from_bytes(content[_PREPARED_AT], "little", signed=True)
        prepared -= int(ago.total_seconds() * 1_000_000)
        content[_PREPARED_AT] = prepared.to_bytes(8, "little", signed=True)
        content[-_CHECKSUM:] = crc32c(bytes(content[:-_CHECKSUM])).to_bytes(4, "little")
        path.write_bytes(content)

    server.while_stopped(scratch, age)
    return gid


@no_prepared_transaction_forgotten.detects
def coordinator_that_died(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """Its log was lost with it, and nobody knows how the transaction was to end."""
    gid = _prepared_long_ago(scratch, timedelta(days=rng.randrange(2, 9)), None)
    return Damage(gid, "it was prepared days ago", says=" in database postgres, open since ")


@no_prepared_transaction_forgotten.detects
def prepared_in_another_database(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """Of an application beside; it holds back all of the server the same."""
    gid = _prepared_long_ago(scratch, timedelta(days=rng.randrange(2, 9)), "template1")
    return Damage(gid, "it was prepared days ago", says=" in database template1, open since ")
