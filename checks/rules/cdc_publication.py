"""What the publication passes on, held against what it did when base backups were taken."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from random import Random

from psycopg import sql

from checks.check import Observation, check
from checks.subjects import BackupRepository, SourceServer
from fixtures.faults import server, sources
from fixtures.scratch import Damage, Scratch
from pipeline.postgres.base import base_backup
from pipeline.postgres.replication.publications import (
    Publication,
    PublishedTable,
    find_publication,
    narrowed,
)
from pipeline.repository.kinds import newest

OPERATIONS = ("insert", "update", "delete", "truncate")


@check(
    "cdc.publication-carries-every-change",
    on=SourceServer,
    severity="blocker",
    advice="What was not published meanwhile never reaches the topics: repair the publication, "
    "then signal an incremental snapshot for the tables named here. Is it meant so? Then list what "
    "is named here in [cdc] narrowed, or wait until retention removed the backups that know it.",
)
def publication_carries_every_change(source: SourceServer) -> Iterator[Observation]:
    """The publication passes on every change, of all that it did at any kept base backup."""
    name = source.config.cdc.publication
    with source.connection() as connection:
        publication = find_publication(connection, name)
    if publication is None:
        yield Observation(name, "the database has no such publication")
        return
    for operation in OPERATIONS:
        silent = None if operation in publication.publish else f"{operation} is not published"
        yield Observation(name, silent)
    published = source.rows(_PUBLISHED, name)
    yield Observation(name, None if published else "it has no table")
    partitioned = any(row["partitioned"] for row in published)
    told = set(source.config.cdc.narrowed)
    for label, then in _published_then(source):
        for subject, problem in narrowed(then, publication, partitioned=partitioned):
            new = problem is not None and subject not in told
            yield Observation(subject, f"{problem}: {label}" if new else None)
            told |= {subject} if new else set()  # once, by the newest that knows it


_PUBLISHED = """
    select c.relispartition or c.relkind = 'p' as partitioned
      from pg_publication_tables p
      join pg_namespace n on n.nspname = p.schemaname
      join pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
     where p.pubname = %s
"""
_PRESENT = """
    select n.nspname as schema, c.relname as name,
           array(select attname::text from pg_attribute
                  where attrelid = c.oid and attnum > 0 and not attisdropped) as columns
      from pg_namespace n left join pg_class c on relnamespace = n.oid and relkind in ('r', 'p')
"""


Columns = dict[tuple[str, str], set[str]]


def _published_then(source: SourceServer) -> Iterator[tuple[str, Publication]]:
    """The publication at each base backup of this database, newest first.

    Only the newest would not do: with the next backup a table that was left out is forgotten.
    """
    present = {(row["schema"], row["name"]): set(row["columns"]) for row in source.rows(_PRESENT)}
    (here,) = source.rows(
        "select system_identifier::text, current_database() as database from pg_control_system()"
    )
    sets = BackupRepository.of(source.config).sets
    first = newest(sets, base_backup.KIND)  # says so where there is none
    labels = [label for label in sets.labels(base_backup.KIND) if label != first.label]
    for backup in chain([first], map(sets.get, reversed(labels))):
        facts = backup.manifest.facts
        if facts["publication"] and here.items() <= facts.items():
            yield backup.label, _still_there(Publication.of(facts["publication"]), present)


def _still_there(then: Publication, present: Columns) -> Publication:
    """It without the schemas, tables and columns that were dropped since."""
    schemas = {schema for schema, _ in present}
    return replace(
        then,
        schemas=tuple(schema for schema in then.schemas if schema in schemas),
        tables=tuple(
            _with_columns(table, present[table.schema, table.name])
            for table in then.tables
            if (table.schema, table.name) in present
        ),
    )


def _with_columns(table: PublishedTable, present: set[str]) -> PublishedTable:
    listed = present if table.columns is None else present & set(table.columns)
    return replace(table, columns=tuple(sorted(listed)))


@publication_carries_every_change.detects
def publication_dropped(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """A restore from a logical backup that left publications out."""
    name = scratch.config.cdc.publication
    server.execute(scratch, sql.SQL("drop publication {}").format(sql.Identifier(name)))
    return Damage(name, "it was dropped", says="has no such publication")


@publication_carries_every_change.detects
def table_left_out(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """A table that was recreated, and not published again."""
    name = scratch.config.cdc.publication
    table = rng.choice(("customers", "orders"))
    change = sql.SQL("alter publication {} drop table {}")
    server.execute(scratch, change.format(sql.Identifier(name), sql.Identifier("shop", table)))
    what = "it was taken out of the publication"
    return Damage(f"shop.{table}", what, says="it was published, and is not")


@publication_carries_every_change.detects
def table_left_out_before_a_backup(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """Nobody noticed, and the next base backup knows it as it is."""
    name = sql.Identifier(scratch.config.cdc.publication)
    change = sql.SQL("alter publication {} drop table shop.customers")
    server.execute(scratch, change.format(name))
    sources.back_up_base(scratch)
    what = "it was taken out of the publication, and then backed up"
    return Damage("shop.customers", what, says="it was published, and is not")


@publication_carries_every_change.detects
def operation_not_published(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """A publication made for another consumer."""
    name = scratch.config.cdc.publication
    kept = ", ".join(rng.sample(OPERATIONS, rng.randrange(1, len(OPERATIONS))))
    change = sql.SQL("alter publication {} set (publish = {})")
    server.execute(scratch, change.format(sql.Identifier(name), kept))
    return Damage(name, f"it publishes only {kept}", says="is not published")


@publication_carries_every_change.detects
def publication_of_all_tables_became_a_list(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """Made again after a restore, with the tables of that day."""
    name = sql.Identifier(scratch.config.cdc.publication)
    drop = sql.SQL("drop publication {}").format(name)
    server.execute(scratch, drop, sql.SQL("create publication {} for all tables").format(name))
    sources.back_up_base(scratch)
    listed = "create publication {} for table shop.customers, shop.orders"
    server.execute(scratch, drop, sql.SQL(listed).format(name))
    return Damage(
        scratch.config.cdc.publication,
        "it was FOR ALL TABLES, and is a list",
        says="it was FOR ALL TABLES",
    )


@publication_carries_every_change.detects
def partitions_told_as_their_root(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """A setting that somebody wanted for one table: topics of partitions fall silent."""
    name = sql.Identifier(scratch.config.cdc.publication)
    server.execute(
        scratch,
        "create table shop.visits (id bigint primary key) partition by hash (id)",
        sql.SQL("alter publication {} add table shop.visits").format(name),
        sql.SQL("alter publication {} set (publish_via_partition_root)").format(name),
    )
    return Damage(
        scratch.config.cdc.publication,
        "publish_via_partition_root was changed",
        says="publish_via_partition_root was",
    )


@publication_carries_every_change.detects
def column_left_out(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """A list of columns that hides one, and those that are added later."""
    change = sql.SQL("alter publication {} set table shop.customers (id), shop.orders")
    server.execute(scratch, change.format(sql.Identifier(scratch.config.cdc.publication)))
    return Damage("shop.customers", "its name is not published", says="name of it was published")


@publication_carries_every_change.detects
def rows_filtered(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """A row filter made for a test."""
    change = sql.SQL("alter publication {} set table shop.customers where (id > {}), shop.orders")
    name = sql.Identifier(scratch.config.cdc.publication)
    server.execute(scratch, change.format(name, rng.randrange(1, 100)))
    return Damage(
        "shop.customers", "a part of its rows is not published", says="its rows were filtered by"
    )
