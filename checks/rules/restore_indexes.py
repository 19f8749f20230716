"""Indexes of a restored server that amcheck has no eye for, and those that PostgreSQL gave up."""

import zlib
from collections.abc import Iterator
from functools import partial
from random import Random
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from checks.catalogue_rules import indexes
from checks.check import Observation, check
from checks.index_probes import NotAsked, index_columns, lost_rows
from checks.restored import TrialRestore
from checks.subjects import in_every_database
from fixtures.faults import sources
from fixtures.scratch import Damage, Scratch
from pipeline.errors import RestoreError

_READY = "update pg_index set indisready = {} where indexrelid = {}::regclass"


@check(
    "restore.other-indexes-complete",
    on=TrialRestore,
    severity="blocker",
    advice="Rows cannot be found by this index: REINDEX it on the source now and after a restore "
    "of this set, then look for what was done because they were not found.",
)
def other_indexes_complete(trial: TrialRestore) -> Iterator[Observation]:
    """Every hash, GIN, GiST, SP-GiST and BRIN index finds rows of its table by their own values."""
    # other rows for each backup, the same ones for one
    seed = zlib.crc32(trial.base.manifest.label.encode())
    not_asked = list[str]()
    yield from in_every_database(trial, partial(_looked_up, seed=seed, not_asked=not_asked))
    if not_asked:
        raise RestoreError("; ".join(not_asked))


def _looked_up(
    connection: psycopg.Connection[Any], *, seed: int, not_asked: list[str]
) -> Iterator[Observation]:
    yield Observation(f"database {connection.info.dbname}", None)
    for column in index_columns(connection):
        try:
            yield Observation(column.place, lost_rows(connection, column, seed))
        except NotAsked as reason:
            not_asked.append(str(reason))
        except psycopg.Error as error:
            yield Observation(column.place, str(error).strip().partition("\n")[0])


def _raced(scratch: Scratch[TrialRestore], create: LiteralString, insert: sql.Composed) -> Damage:
    """Have an index miss what is inserted, as if its build had raced with the writer."""
    name = "shop.raced"
    off, on = (sql.SQL(_READY).format(ready, name) for ready in (False, True))
    sources.base_backup_after(scratch, create, off, insert, on)
    return Damage(name, "an insert went past it", says="it does not find 1 of")


def _customer(rng: Random) -> sql.Composed:
    insert = "insert into shop.customers values ({}, {})"
    return sql.SQL(insert).format(rng.randrange(1_000, 9_000), f"lost {rng.randrange(1_000)}")


@other_indexes_complete.detects
def row_that_a_hash_index_never_saw(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """Equality finds nothing; a B-tree of the same column finds the row, and hides that."""
    create = "create index raced on shop.customers using hash (id)"
    return _raced(scratch, create, _customer(rng))


@other_indexes_complete.detects
def words_that_a_gin_index_never_saw(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """A full-text search that misses what is there."""
    create = "create index raced on shop.customers using gin (to_tsvector('simple', name))"
    return _raced(scratch, create, _customer(rng))


@other_indexes_complete.detects
def array_that_a_gin_index_never_saw(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """Of a table in another database than the configured one."""
    number = rng.randrange(1_000)
    with sources.running(scratch):
        sources.execute(scratch, "create database beside")
        sources.execute_in(
            scratch,
            "beside",
            "create table tags (words text[])",
            "insert into tags select array['word ' || n] from generate_series(1, 50) n",
            "create index raced on tags using gin (words) where words <> '{}'",
            sql.SQL(_READY).format(False, "raced"),
            sql.SQL("insert into tags values (array[{}])").format(f"lost {number}"),
            sql.SQL(_READY).format(True, "raced"),
        )
        sources.back_up_base(scratch)
    return Damage("beside: public.raced", "an insert went past it", says="it does not find 1 of")


@other_indexes_complete.detects
def range_that_a_gist_index_never_saw(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """An exclusion constraint lets in what it should refuse."""
    create = "create index raced on shop.customers using gist (int8range(id, id + 5))"
    return _raced(scratch, create, _customer(rng))


@other_indexes_complete.detects
def text_that_an_spgist_index_never_saw(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """A search by prefix that misses what is there."""
    create = 'create index raced on shop.customers using spgist (name collate "C")'
    return _raced(scratch, create, _customer(rng))


@other_indexes_complete.detects
def summary_that_is_too_narrow(scratch: Scratch[TrialRestore], rng: Random) -> Damage:
    """A BRIN index whose summary of a range of pages knows nothing of the newest row in it."""
    create = "create index raced on shop.customers using brin (id)"
    return _raced(scratch, create, _customer(rng))


@check(
    "restore.indexes-usable",
    on=TrialRestore,
    severity="normal",
    advice="PostgreSQL does not use this index, and a unique one lets keys in twice: REINDEX INDEX "
    "CONCURRENTLY it on the source, or drop what a build that failed has left behind.",
)
def indexes_usable(trial: TrialRestore) -> Iterator[Observation]:
    """No index was left invalid, in any database."""
    yield from in_every_database(trial, indexes)


@indexes_usable.detects
def unique_index_marked_invalid(scratch: Scratch[TrialRestore], _rng: Random) -> Damage:
    """A repair by hand in the catalogue that was never finished."""
    invalid = "update pg_index set indisvalid = false where indexrelid = 'by_name'::regclass"
    sources.base_backup_after(
        scratch,
        "create unique index by_name on shop.customers (name)",
        invalid.replace("by_name", "shop.by_name").encode(),
    )
    return Damage("shop.by_name", "it was marked invalid", says="does not keep its keys unique")


@indexes_usable.detects
def concurrent_build_that_failed(scratch: Scratch[TrialRestore], _rng: Random) -> Damage:
    """CREATE UNIQUE INDEX CONCURRENTLY met a key twice, and left what it had begun."""
    build = "create unique index concurrently by_customer on shop.orders (customer)"
    with sources.running(scratch):
        try:
            sources.execute(scratch, build)
        except psycopg.errors.UniqueViolation:
            sources.back_up_base(scratch)
    return Damage("shop.by_customer", "its build failed", says="it is invalid")
