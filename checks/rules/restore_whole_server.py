"""What a restored server needs besides its tables: open transactions, programs of extensions."""

from collections.abc import Iterator
from random import Random

from psycopg import sql

from checks.catalogue_rules import extensions
from checks.check import Observation, check
from checks.restored import TrialRestore
from checks.subjects import in_every_database
from fixtures.faults import backups, server, sources
from fixtures.scratch import Damage, Scratch
from pipeline.postgres.base.base_backup import PREPARED
from pipeline.postgres.server.prepared import prepared_transactions


@check(
    "restore.prepared-transactions-kept",
    on=TrialRestore,
    severity="blocker",
    advice="Its coordinator holds it for safe, and COMMIT PREPARED will find nothing: restore from "
    "the set before it (`--without`), and let that coordinator decide before clients come.",
)
def prepared_transactions_kept(trial: TrialRestore) -> Iterator[Observation]:
    """Every transaction that stayed prepared while the backup was taken waits in the restored."""
    with trial.connect() as connection:
        found = {one.gid: one.xid for one in prepared_transactions(connection)}
    yield Observation("pg_prepared_xacts", None)
    for gid, xid in trial.base.facts.get(PREPARED, {}).items():
        lost = f"transaction {xid} was prepared when the backup was taken, and is not here"
        yield Observation(gid, None if found.get(gid) == xid else lost)


def _prepared(scratch: Scratch[TrialRestore], rng: Random) -> str:
    """Leave a transaction prepared, and back up the server."""
    gid = f"order {rng.randrange(100)}"
    with sources.running(scratch):
        server.change_setting(scratch, "max_prepared_transactions", "4")
        server.while_stopped(scratch, lambda _: None)
        server.prepare(scratch, gid)
        sources.back_up_base(scratch)
    return gid


@prepared_transactions_kept.detects
def state_of_prepared_transactions_left_out(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """A copy that took only what looks like data; the server starts, and misses nothing."""
    gid = _prepared(scratch, rng)
    backups.repack(
        scratch,
        lambda name, kept: None if name.removeprefix("./").startswith("pg_twophase/") else kept,
        forged=True,
    )
    return Damage(
        gid,
        "its file was left out, all lists agree",
        says="was prepared when the backup was taken, and is not here",
    )


@prepared_transactions_kept.detects
def files_of_a_moment_before(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """The backup is one of before it was prepared, under the manifest of a later one."""
    gid = f"order {rng.randrange(100)}"
    backups.change_fact(scratch, PREPARED, {gid: rng.randrange(700, 900)})
    return Damage(
        gid,
        "the source had it, the backup has not",
        says="was prepared when the backup was taken, and is not here",
    )


@check(
    "restore.extensions-at-hand",
    on=TrialRestore,
    severity="normal",
    advice="What uses it fails after a restore on a machine like this one: install the package "
    "that the source has, in that version, wherever this backup is to be restored.",
)
def extensions_at_hand(trial: TrialRestore) -> Iterator[Observation]:
    """Every extension of every database is installed, in its version, where it is restored."""
    yield from in_every_database(trial, extensions)


@extensions_at_hand.detects
def version_that_is_not_installed(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """The source has a newer package than this machine."""
    version = f"{rng.randrange(20, 90)}.0"
    change = "update pg_extension set extversion = {} where extname = 'plpgsql'"
    sources.base_backup_after(scratch, sql.SQL(change).format(version))
    return Damage(
        "extension plpgsql",
        f"the source had version {version}",
        says=f"its version {version} is not installed here",
    )


@extensions_at_hand.detects
def version_of_another_database(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """An application beside uses an extension that nobody thought of here."""
    version = f"{rng.randrange(20, 90)}.0"
    change = "update pg_extension set extversion = {} where extname = 'plpgsql'"
    with sources.running(scratch):
        sources.execute(scratch, "create database beside")
        sources.execute_in(scratch, "beside", sql.SQL(change).format(version))
        sources.back_up_base(scratch)
    return Damage(
        "beside: extension plpgsql",
        f"the source had version {version}",
        says=f"its version {version} is not installed here",
    )
