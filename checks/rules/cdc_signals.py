"""Whether a connector hears the signals that repairs are begun with."""

from collections.abc import Iterator, Mapping
from random import Random
from typing import LiteralString

from psycopg import sql

from checks.check import Observation, check
from checks.connectors import Connectors
from checks.subjects import SourceServer
from fixtures.faults import connectors, server
from fixtures.scratch import Damage, Scratch

SIGNALS = "shop.signals"
_MADE = "create table shop.signals (id text primary key, type text not null, data text)"
_FOUND = """
    select exists (select from pg_publication_tables p where p.pubname = %s
                      and p.schemaname = n.nspname and p.tablename = c.relname) as published,
           coalesce(has_table_privilege(r.oid, c.oid, 'insert'), false)
             and has_schema_privilege(r.oid, n.oid, 'usage') as writable,
           r.rolname as role
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      left join pg_roles r on r.rolname = %s
     where concat_ws('.', n.nspname, c.relname) = %s
"""


@check(
    "cdc.signals-are-heard",
    on=Connectors,
    advice="Without its table no incremental snapshot can be signalled, which is how single tables "
    "are read again: make it (id, type, data), publish it, and grant the connector's role INSERT.",
)
def signals_are_heard(connectors: Connectors) -> Iterator[Observation]:
    """The table that a connector takes signals from is there, published, and open to its role."""
    for name, told in connectors.own.items():
        yield Observation(name, None)
        channels = told.get("signal.enabled.channels", "source").replace(" ", "").split(",")
        table = told.get("signal.data.collection")
        if table is not None and "source" in channels:
            yield Observation(table, _unheard(connectors.source, name, told, table))


def _unheard(source: SourceServer, name: str, told: Mapping[str, str], table: str) -> str | None:
    publication = told["publication.name"]
    found = source.rows(_FOUND, publication, told.get("database.user", ""), table)
    if not found:
        return f"it is signal.data.collection of {name}, and there is no such table"
    (row,) = found
    if not row["published"]:
        return f"{name} takes its signals from there, and publication {publication} lacks it"
    # a role that only the worker resolves is none of the server's
    writes = row["role"] is not None and told.get("read.only", "false").lower() != "true"
    refused = f"role {row['role']} of {name} may not write its watermarks there"
    return refused if writes and not row["writable"] else None


def _with_signals(scratch: Scratch[Connectors], *more: LiteralString) -> None:
    """Make and publish the table, tell the connector of it, and change what is then changed."""
    name = sql.Identifier(scratch.config.cdc.publication)
    publish = sql.SQL("alter publication {} add table shop.signals").format(name)
    server.execute(scratch, _MADE, publish)
    connectors.reconfigure(scratch, signal_data_collection=SIGNALS)
    server.execute(scratch, *(sql.SQL(each).format(name) for each in more))


@signals_are_heard.detects
def signal_table_gone(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """Taken for a leftover of somebody's test."""
    _with_signals(scratch, "drop table shop.signals")
    return Damage(SIGNALS, "it was dropped", says="there is no such table")


@signals_are_heard.detects
def signal_table_unpublished(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """A publication that was made again from the list of tables with data."""
    _with_signals(scratch, "alter publication {} drop table shop.signals")
    return Damage(SIGNALS, "it was taken out of the publication", says="lacks it")
