"""Connectors beside [cdc] and the publication: what is published must end in the topics."""

from collections.abc import Iterable, Iterator
from random import Random

from psycopg import sql

from checks import captured
from checks.check import Observation, check
from checks.connectors import Connectors
from fixtures.connect_material import TABLES, connector
from fixtures.faults import connectors, server
from fixtures.scratch import Damage, Scratch
from pipeline.cdc.include_lists import column_left_out, left_out, rows_left_out

_COLUMNS = """
    select concat_ws('.', schemaname, tablename) as table, attnames::text[] as columns
      from pg_publication_tables where pubname = %s
"""


@check(
    "cdc.connectors-carry-what-is-published",
    on=Connectors,
    severity="blocker",
    advice="What the connector leaves out is in no topic, and a recovery that compares topics with "
    "tables fails on it: change its configuration (PUT /connectors/NAME/config), then signal an "
    "incremental snapshot. Is it meant so? Then take it out of the publication, or change [cdc].",
)
def connectors_carry_what_is_published(connectors: Connectors) -> Iterator[Observation]:
    """Connectors read what [cdc] names, and pass on each table and column that is published."""
    config, own = connectors.source.config, connectors.own
    for name, told in own.items():
        yield Observation(name, None)
        yield from (Observation(name, stray) for stray in captured.strays(config, told))
        yield from (Observation(name, dropped) for dropped in captured.drops(told))
    published = connectors.source.rows(_COLUMNS, config.cdc.publication)
    for row in published:
        table, columns = row["table"], row["columns"]
        yield Observation(table, _left_out(left_out(told, table) for told in own.values()))
        rows = _left_out(rows_left_out(told, table) for told in own.values())
        yield Observation(table, rows)
        for column in (f"{table}.{column}" for column in columns):
            hidden = _left_out(column_left_out(told, column) for told in own.values())
            yield Observation(column, hidden)
    topics = [f"{config.cdc.topic_prefix}.{row['table']}" for row in published]
    for name, told in own.items():  # last: one that is not known ends it
        yield from (Observation(name, harm) for harm in captured.reshaped(told, topics))


def _left_out(settings: Iterable[str | None]) -> str | None:
    """Whether every connector leaves it out, and by which setting the first one does."""
    found = list(settings)
    return f"it is published, and {found[0]} leaves it out" if found and all(found) else None


@connectors_carry_what_is_published.detects
def smaller_include_list(scratch: Scratch[Connectors], rng: Random) -> Damage:
    """The list of a test, where one table was enough."""
    kept, lost = rng.sample(TABLES, 2)
    connectors.reconfigure(scratch, table_include_list=kept)
    return Damage(lost, f"only {kept} is in the list", says="table.include.list leaves it out")


@connectors_carry_what_is_published.detects
def another_publication(scratch: Scratch[Connectors], rng: Random) -> Damage:
    """A publication of another consumer, which has fewer tables."""
    other = f"reports_{rng.randrange(100)}"
    make = sql.SQL("create publication {} for table shop.customers")
    server.execute(scratch, make.format(sql.Identifier(other)))
    connectors.reconfigure(scratch, publication_name=other)
    what = f"it reads publication {other}"
    return Damage(connector(scratch.config), what, says=f"publication.name is {other}")


@connectors_carry_what_is_published.detects
def another_topic_prefix(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """A prefix for each environment, and that of another one here."""
    connectors.reconfigure(scratch, topic_prefix="staging")
    what = "it writes to other topics"
    return Damage(connector(scratch.config), what, says="topic.prefix is staging")


@connectors_carry_what_is_published.detects
def column_excluded(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """Left out for reasons of privacy, and consumers get nulls."""
    connectors.reconfigure(scratch, column_exclude_list=r"shop\.customers\.name")
    what = "it is in column.exclude.list"
    return Damage("shop.customers.name", what, says="column.exclude.list leaves it out")


@connectors_carry_what_is_published.detects
def deletes_skipped(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """For a sink that only appends."""
    connectors.reconfigure(scratch, skipped_operations="t,d")
    return Damage(connector(scratch.config), "deletes are skipped", says="deletes never arrive")


@connectors_carry_what_is_published.detects
def tombstones_left_out(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """For a consumer that could not read them."""
    connectors.reconfigure(scratch, tombstones_on_delete="false")
    return Damage(connector(scratch.config), "no tombstones", says="tombstones.on.delete")


@connectors_carry_what_is_published.detects
def events_that_fail_are_dropped(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """Set in a night when a task failed again and again."""
    connectors.reconfigure(scratch, errors_tolerance="all")
    return Damage(connector(scratch.config), "errors are tolerated", says="errors.tolerance")


@connectors_carry_what_is_published.detects
def events_routed_elsewhere(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """Topics by a new scheme of names."""
    connectors.reconfigure(
        scratch,
        transforms="names",
        transforms_names_type="org.apache.kafka.connect.transforms.RegexRouter",
        transforms_names_regex=r"[^.]+\.shop\.(.*)",
        transforms_names_replacement="$1",
    )
    return Damage(connector(scratch.config), "topics were renamed", says="sends events elsewhere")


@connectors_carry_what_is_published.detects
def snapshot_of_some_tables(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """To be ready sooner: the next one that a recovery begins leaves rows out."""
    connectors.reconfigure(scratch, snapshot_include_collection_list=r"shop\.customers")
    reason = "snapshot.include.collection.list leaves it out"
    return Damage("shop.orders", "snapshots read another table", says=reason)
