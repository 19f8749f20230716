"""What a running source holds that a recovery would not bring back, or that one left behind."""

from collections.abc import Iterator
from random import Random
from typing import Any

import psycopg
from psycopg import sql

from checks.check import Observation, check
from checks.rules.postgres import wal_settings
from checks.subjects import SourceServer, in_every_database
from fixtures.faults import server, sources
from fixtures.scratch import Damage, Scratch
from pipeline.postgres.server.server import LocalServer

LEFTOVERS = ("backup_label", "tablespace_map", "backup_manifest", "standby.signal")
"""Files of a backup or a restore: a server that was promoted has none of them."""
_TABLES = """
    select concat_ws('.', n.nspname, relname), relpersistence = 'u'
      from pg_class c join pg_namespace n on n.oid = relnamespace
     where relkind in ('r', 'p') and relpersistence <> 't'
       and n.nspname !~ '^(pg_|information_schema)'
"""


@wal_settings.detects
def wal_level_minimal(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """Lowered for a bulk load: what was loaded then is in no WAL, and CDC is off."""
    slot = scratch.config.cdc.slot
    server.execute(scratch, sql.SQL("select pg_drop_replication_slot({})").format(slot))
    for name, value in (("archive_mode", "off"), ("max_wal_senders", "0")):
        server.change_setting(scratch, name, value)
    server.change_setting(scratch, "wal_level", "minimal")
    server.while_stopped(scratch, lambda _: None)
    return Damage("wal_level", "it is minimal", says="expected logical, found minimal")


@check(
    "postgres.every-table-is-logged",
    on=SourceServer,
    advice="After any crash or recovery this table is empty, and no backup holds its rows. ALTER "
    "TABLE … SET LOGGED, or keep what may be lost in a schema that this account does not see.",
)
def every_table_is_logged(source: SourceServer) -> Iterator[Observation]:
    """No table of any database is unlogged: the rows of those do not survive a recovery."""
    yield from in_every_database(source, _logged)


def _logged(connection: psycopg.Connection[Any]) -> Iterator[Observation]:
    yield Observation(f"database {connection.info.dbname}", None)
    for name, unlogged in connection.execute(_TABLES).fetchall():
        lost = "it is unlogged: a recovery leaves it empty"
        yield Observation(name, lost if unlogged else None)


@every_table_is_logged.detects
def table_made_unlogged(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """A quick cure for a slow load, never undone."""
    publication = sql.Identifier(scratch.config.cdc.publication)
    leave = sql.SQL("alter publication {} drop table shop.orders").format(publication)
    server.execute(scratch, leave, "alter table shop.orders set unlogged")
    return Damage("shop.orders", "it became unlogged", says="it is unlogged")


@every_table_is_logged.detects
def unlogged_table_added(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """A table of sessions that became a table of orders."""
    name = f"queue_{rng.randrange(100)}"
    make = sql.SQL("create unlogged table {} (id bigint)")
    server.execute(scratch, make.format(sql.Identifier("shop", name)))
    return Damage(f"shop.{name}", "it was made unlogged", says="it is unlogged")


@every_table_is_logged.detects
def unlogged_table_in_another_database(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """Of an application beside, which a recovery of the server brings back as well."""
    name = f"queue_{rng.randrange(100)}"
    server.execute(scratch, "create database beside")
    make = sql.SQL("create unlogged table {} (id bigint)").format(sql.Identifier(name))
    sources.execute_in(scratch, "beside", make)
    return Damage(f"beside: public.{name}", "it was made unlogged", says="it is unlogged")


@check(
    "postgres.no-leftovers-of-a-restore",
    on=SourceServer,
    severity="normal",
    advice="The next restart would begin a recovery, or the next restore would stop where this one "
    "did: remove the file, or ALTER SYSTEM RESET what is named here.",
)
def no_leftovers(source: SourceServer) -> Iterator[Observation]:
    """Nothing of an earlier restore is left: neither its files nor its recovery target."""
    files = {row["name"] for row in source.rows("select pg_ls_dir('.') as name")}
    for name in (*LEFTOVERS, "recovery.signal"):
        yield Observation(name, "it lies in the data folder" if name in files else None)
    for row in source.rows(
        """
        select name, setting from pg_settings
         where name in ('recovery_target', 'recovery_target_lsn', 'recovery_target_name',
                        'recovery_target_time', 'recovery_target_xid')
        """
    ):
        told = f"it is still {row['setting']!r}"
        yield Observation(row["name"], told if row["setting"] else None)


@no_leftovers.detects
def target_left_in_the_settings(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """The target of the last recovery, in postgresql.auto.conf since."""
    server.change_setting(scratch, "recovery_target_xid", str(rng.randrange(3, 10_000)))
    server.while_stopped(scratch, lambda _: None)
    return Damage("recovery_target_xid", "it was left in the settings", says="it is still")


@no_leftovers.detects
def file_of_a_backup_left(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """A data folder that was unpacked by hand, its lists included (barman #623)."""
    name = rng.choice(("backup_manifest", "recovery.signal", "standby.signal"))

    def leave(own: LocalServer) -> None:
        (own.data / name).write_text("")
        own.tools.own(own.data / name)

    leave(server.own_server(scratch))
    return Damage(name, "it lies in the data folder", says="it lies in the data folder")
