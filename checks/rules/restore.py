"""The only proof of a backup is a restore: on this machine, into a server that is thrown away."""

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import psycopg
from psycopg import sql

from checks.check import Observation, check
from checks.restored import TrialRestore
from fixtures.faults import backups, files
from fixtures.scratch import Damage, Scratch
from pipeline.errors import PipelineError

_TABLES = """
    select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind = 'r' and c.relpersistence = 'p'
       and n.nspname <> 'information_schema' and n.nspname !~ '^pg_' order by 1, 2
"""


@check(
    "restore.base-backup-starts",
    on=TrialRestore,
    severity="blocker",
    advice="Its server's own words tell why. What this machine lacks (memory, a library) is "
    "mended here; otherwise this backup does not bring the data back. Read the same table at the "
    "source (amcheck, pg_dump): where that fails too, a new backup holds the same damage: keep the "
    "older sets. Where it does not, take a new one, and prove it with this check.",
)
def base_backup_starts(trial: TrialRestore) -> Iterator[Observation]:
    """The newest base backup unpacks, its server starts, and all rows of all databases are read."""
    label = trial.base.manifest.label
    try:
        trial.connect().close()
    except PipelineError as error:
        yield Observation(label, str(error))
        return
    yield Observation(label, None)
    known = [(table["schema"], table["name"]) for table in trial.base.facts["tables"]]
    for where, connection in trial.databases():
        # of its own database the set noted what there was, which tells what is missing too
        for schema, name in connection.execute(_TABLES).fetchall() if where else known:
            seen = _reading(connection, schema, name)
            yield replace(seen, subject=f"{where}{seen.subject}")


def _reading(connection: psycopg.Connection[Any], schema: str, name: str) -> Observation:
    """Read every column of every row; what is stored out of line is read only as text."""
    query = sql.SQL("select count(t::text) from only {} t").format(sql.Identifier(schema, name))
    try:
        connection.execute(query)
    except psycopg.Error as error:
        return Observation(f"{schema}.{name}", str(error).strip())
    return Observation(f"{schema}.{name}", None)


@base_backup_starts.detects
def wal_of_the_backup_zeroed(scratch: Scratch[TrialRestore], _rng: Random) -> Damage:
    """The WAL inside of a base backup is in no list of files: only replaying it tells."""
    label = scratch.copy.base.manifest.label
    backups.repack(scratch, lambda name, content: bytes(len(content)) if is_wal(name) else content)
    return Damage(
        label,
        "its own WAL is zero, and all digests agree",
        says="cannot read the WAL of the backup",
    )


@base_backup_starts.detects
def wal_of_the_backup_left_out(scratch: Scratch[TrialRestore], _rng: Random) -> Damage:
    """A copy that skipped pg_wal, because the archive has it all."""
    label = scratch.copy.base.manifest.label
    backups.repack(scratch, lambda name, content: None if is_wal(name) else content)
    return Damage(
        label,
        "its own WAL was left out, and all digests agree",
        says="cannot read the WAL of the backup",
    )


@base_backup_starts.detects
def object_damaged(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """Bit rot in storage."""
    base = scratch.copy.base.manifest
    return Damage(
        base.label, files.flip_bit(scratch, base.objects[0].key, rng).what, says="with sha256"
    )


@base_backup_starts.detects
def table_not_in_the_backup(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """The backup of another database than the one that was meant."""
    name = f"archive_{rng.randrange(1000)}"
    tables = scratch.copy.base.facts["tables"]
    missing = {**tables[0], "schema": "shop", "name": name}
    backups.change_fact(scratch, "tables", [*tables, missing])
    return Damage(f"shop.{name}", "the source had it, the backup has not", says="does not exist")


def is_wal(name: str) -> bool:
    """Whether a file of an archive is WAL."""
    return name.removeprefix("./").startswith("pg_wal/0")
