"""The order of text: a library that sorts otherwise makes indexes and partitions miss rows."""

from collections.abc import Iterator
from random import Random

from psycopg import sql

from checks.catalogue_rules import collations
from checks.check import Observation, check
from checks.restored import TrialRestore
from checks.subjects import in_every_database
from fixtures.faults import sources
from fixtures.scratch import Damage, Scratch
from fixtures.stacks.versions import since


@check(
    "restore.collations-as-sorted",
    on=TrialRestore,
    severity="normal",
    advice="Text sorts otherwise here than where the indexes were built. Restore on the system "
    "library of the source, or REINDEX every index on text after a restore, before clients come.",
)
def collations_as_sorted(trial: TrialRestore) -> Iterator[Observation]:
    """Collations that sort indexes, bound partitions or make ranges are of the source's version."""
    yield from in_every_database(trial, collations)


@collations_as_sorted.detects
def collation_of_another_library(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """The backup comes from a machine whose library sorted otherwise."""
    since(17, "the collation provider builtin")
    version = f"{rng.randrange(10, 99)}.0"
    sources.base_backup_after(
        scratch,
        "create collation shop.words (provider = builtin, locale = 'C.UTF-8')",
        "alter table shop.customers alter name type text collate shop.words",
        "create index by_name on shop.customers (name)",
        sql.SQL("update pg_collation set collversion = {} where collname = 'words'").format(
            version
        ),
    )
    return Damage(
        "collation shop.words",
        f"the source sorted by version {version}",
        says="it sorted as version",
    )


@collations_as_sorted.detects
def collation_that_bounds_partitions(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """No index is on it, and rows lie in partitions where nobody looks for them now."""
    since(17, "the collation provider builtin")
    version = f"{rng.randrange(10, 99)}.0"
    change = sql.SQL("update pg_collation set collversion = {} where collname = 'bounds'")
    with sources.running(scratch):
        sources.execute(scratch, "create database beside")
        sources.execute_in(
            scratch,
            "beside",
            "create collation bounds (provider = builtin, locale = 'C.UTF-8')",
            "create table names (name text collate bounds) partition by range (name)",
            change.format(version),
        )
        sources.back_up_base(scratch)
    return Damage(
        "beside: collation bounds",
        f"the source sorted by version {version}",
        says="it sorted as version",
    )


@collations_as_sorted.detects
def database_of_another_library(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """The default order of a whole database changed with the system below it."""
    version = f"2.{rng.randrange(10, 60)}"
    name = scratch.config.postgres.dbname
    change = sql.SQL("update pg_database set datcollversion = {} where datname = {}")
    sources.base_backup_after(scratch, change.format(version, name))
    return Damage(
        f"database {name}", f"the source sorted by version {version}", says="it sorted as version"
    )
