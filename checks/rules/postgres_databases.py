"""What is wrong in any database of the running source, the configured one or another."""

from collections.abc import Iterator
from random import Random

import psycopg
from psycopg import sql

from checks.catalogue_rules import collations, indexes
from checks.check import Observation, check
from checks.subjects import SourceServer, in_every_database
from fixtures.faults import server, sources
from fixtures.scratch import Damage, Scratch
from fixtures.stacks.versions import since


@check(
    "postgres.indexes-usable",
    on=SourceServer,
    severity="normal",
    advice="PostgreSQL does not use this index, and a unique one lets keys in twice: look for such "
    "keys, REINDEX INDEX CONCURRENTLY it, or drop what a build that failed has left behind.",
)
def indexes_usable(source: SourceServer) -> Iterator[Observation]:
    """No index of any database was left invalid."""
    yield from in_every_database(source, indexes)


@indexes_usable.detects
def unique_index_marked_invalid(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """A repair by hand in the catalogue that was never finished."""
    server.execute(
        scratch,
        "update pg_index set indisvalid = false where indexrelid = 'shop.customers_pkey'::regclass",
    )
    return Damage(
        "shop.customers_pkey", "it was marked invalid", says="does not keep its keys unique"
    )


@indexes_usable.detects
def concurrent_build_that_failed(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """In another database: a key was there twice, and what was begun has been left."""
    key = rng.randrange(100)
    server.execute(scratch, "create database beside")
    sources.execute_in(
        scratch,
        "beside",
        "create table keys (key int)",
        sql.SQL("insert into keys values ({0}), ({0})").format(key),
    )
    try:
        sources.execute_in(scratch, "beside", "create unique index concurrently one on keys (key)")
    except psycopg.errors.UniqueViolation:
        return Damage("beside: public.one", f"its build failed at {key}", says="it is invalid")
    raise RuntimeError("a unique index was built on keys that are there twice")


@check(
    "postgres.collations-as-sorted",
    on=SourceServer,
    severity="blocker",
    advice="The library under this server was changed, and text sorts otherwise than in the "
    "indexes: rows are not found, and keys get in twice. REINDEX what sorts text, move rows whose "
    "partition is another now, then ALTER … REFRESH COLLATION VERSION.",
)
def collations_as_sorted(source: SourceServer) -> Iterator[Observation]:
    """Text sorts in every database as when its indexes and partitions were made."""
    yield from in_every_database(source, collations)


@collations_as_sorted.detects
def database_of_another_library(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """The system below was upgraded; here of a database that nobody configured."""
    version = f"2.{rng.randrange(10, 60)}"
    server.execute(
        scratch,
        "create database beside",
        sql.SQL("update pg_database set datcollversion = {} where datname = 'beside'").format(
            version
        ),
    )
    return Damage(
        "beside: database beside",
        f"it sorted by version {version}",
        says=f"it sorted as version {version}",
    )


@collations_as_sorted.detects
def collation_that_makes_ranges(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """A range type by a collation whose library changed: what contains what is another thing."""
    since(17, "the collation provider builtin")
    version = f"{rng.randrange(10, 99)}.0"
    server.execute(
        scratch,
        "create collation shop.words (provider = builtin, locale = 'C.UTF-8')",
        "create type shop.span as range (subtype = text, collation = shop.words)",
        sql.SQL("update pg_collation set collversion = {} where collname = 'words'").format(
            version
        ),
    )
    return Damage(
        "collation shop.words",
        f"it sorted by version {version}",
        says=f"it sorted as version {version}",
    )
