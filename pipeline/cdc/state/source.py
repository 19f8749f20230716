"""What the source server tells of CDC: slots first, and last where its WAL ends."""

from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipeline.cdc.names import unquoted
from pipeline.cdc.state.connect import Connector
from pipeline.cdc.state.parts import Part
from pipeline.cdc.state.reading import (
    DatabasePublication,
    Prepared,
    PublishedTable,
    SeenSlot,
    Server,
    ServiceTable,
    SubscriptionRead,
    Unread,
)
from pipeline.cdc.state.settings import service_tables
from pipeline.config import PostgresConfig
from pipeline.postgres.replication.publications import find_publication
from pipeline.postgres.server.prepared import prepared_transactions
from pipeline.postgres.server.session import connect

Connection = psycopg.Connection[Any]

# to_jsonb: the view's columns differ between the versions, and a missing one must not be an error
_SLOTS = """
    SELECT to_jsonb(s), r.application_name || coalesce(' at ' || host(r.client_addr), '')
      FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
     WHERE NOT (s.temporary AND s.slot_name LIKE 'pipeline\\_look\\_%%') ORDER BY slot_name
"""
# the control file tells the timeline of the last checkpoint, and a promotion is not one yet
_SERVER = """
    SELECT c.system_identifier::text,
           CASE WHEN pg_is_in_recovery() THEN (pg_control_checkpoint()).timeline_id
                ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int
           END AS timeline,
           current_setting('server_version_num')::int AS version,
           current_database() AS database,
           (SELECT array_agg(datname::text ORDER BY datname) FROM pg_database) AS databases,
           pg_is_in_recovery() AS in_recovery,
           current_setting('wal_level') AS wal_level,
           (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                 ELSE pg_current_wal_flush_lsn() END)::text AS flush_lsn,
           pg_size_bytes(current_setting('wal_segment_size')) AS segment_bytes,
           nullif(greatest(pg_size_bytes(current_setting('max_slot_wal_keep_size')), -1), -1)
             AS limit,
           coalesce(current_setting('synchronized_standby_slots', true), '') AS guards
      FROM pg_control_system() c
"""
# changes are written to partitions, whatever the publication calls them; and the server takes no
# index as an identity that is not valid, or is checked only when a transaction commits
_IDENTITIES = """
    WITH published AS (
        SELECT c.oid, c.relkind FROM pg_publication_tables p
          JOIN pg_namespace n ON n.nspname = p.schemaname
          JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
         WHERE p.pubname = %s),
    leaves AS (
        SELECT oid FROM published WHERE relkind <> 'p' UNION
        SELECT relid FROM published, pg_partition_tree(oid) WHERE relkind = 'p' AND isleaf)
    SELECT concat_ws('.', n.nspname, c.relname) AS name, c.relreplident::text AS identity,
           CASE c.relreplident::text
             WHEN 'f' THEN true WHEN 'n' THEN false
             WHEN 'd' THEN coalesce(bool_or(i.indisprimary), false)
             ELSE coalesce(bool_or(i.indisreplident), false) END AS usable
      FROM leaves JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
     GROUP BY 1, 2, c.relreplident ORDER BY 1
"""
_TABLES = """
    SELECT concat_ws('.', n.nspname, c.relname)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
     ORDER BY 1
"""
_SUBSCRIPTIONS = """
    SELECT d.datname::text AS database, s.subname::text AS name, s.subenabled AS enabled
      FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid ORDER BY 1, 2
"""
# a bare name is one of the role's own search path, which nobody else can tell: any schema will do
_TABLE = """
    SELECT c.oid, concat_ws('.', n.nspname, c.relname) AS name,
           EXISTS (SELECT FROM pg_publication_tables p WHERE p.pubname = %(publication)s
                      AND p.schemaname = n.nspname AND p.tablename = c.relname) AS published,
           r.rolname AS role,
           r.oid IS NOT NULL AND NOT has_schema_privilege(r.oid, n.oid, 'usage') AS closed,
           array(SELECT one FROM unnest(%(needs)s::text[]) one
                  WHERE r.oid IS NOT NULL AND NOT has_table_privilege(r.oid, c.oid, one)) AS lacks
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_roles r ON r.rolname = %(role)s
     WHERE c.relkind IN ('r', 'p')
       AND %(table)s::text IN (concat_ws('.', n.nspname, c.relname), c.relname::text)
     ORDER BY n.nspname LIMIT 1
"""


def slots(connection: Connection) -> tuple[SeenSlot, ...]:
    """Every slot of the server, physical ones too."""
    return tuple(
        SeenSlot.of(
            row
            | {"reader": reader, "plugin": row["plugin"] or "", "database": row["database"] or ""}
        )
        for row, reader in connection.execute(_SLOTS)
    )


def server(connection: Connection) -> Server:
    """Which history the server writes, and where it ends now."""
    row = connection.cursor(row_factory=dict_row).execute(_SERVER).fetchone() or {}
    named = (guard.strip(' "') for guard in row["guards"].split(","))
    return Server.model_validate(row | {"guards": tuple(filter(None, named))})


def prepared(connection: Connection) -> tuple[Prepared, ...]:
    """Transactions of any database that wait for their coordinator."""
    return tuple(
        Prepared(gid=one.gid, database=one.database, since=one.since)
        for one in prepared_transactions(connection)
    )


def subscriptions(connection: Connection) -> tuple[SubscriptionRead, ...]:
    """Subscriptions of every database."""
    rows = connection.cursor(row_factory=dict_row).execute(_SUBSCRIPTIONS)
    return tuple(SubscriptionRead.model_validate(row) for row in rows)


class Databases:
    """What has to be asked in each database by itself; one that lets nobody in is named."""

    def __init__(self, postgres: PostgresConfig, names: Iterable[str]) -> None:
        self._postgres, self._names = postgres, sorted(set(names) | {postgres.dbname})
        self.publications: list[DatabasePublication] = []
        self.tables: dict[str, tuple[str, ...]] = {}
        self.service_tables: list[ServiceTable] = []
        self.unread: list[Unread] = []

    def read(self, connectors: Iterable[Connector]) -> None:
        """Read publications, and the tables that connectors need for themselves."""
        wanted = list(connectors)
        for name in self._names:
            left = [Part.PUBLICATIONS, Part.SERVICE_TABLES]
            try:
                with connect(self._postgres, autocommit=True, dbname=name) as connection:
                    rows = connection.execute(_TABLES)
                    self.tables[name] = tuple(row[0] for row in rows)
                    self.publications += _publications(connection, name)
                    del left[0]
                    for each in wanted:
                        if each.database == name:
                            self.service_tables += _service_tables(connection, each)
            except psycopg.Error as error:
                self.unread += [_closed(part, self._postgres, name, error) for part in left]


def _publications(connection: Connection, database: str) -> Iterator[DatabasePublication]:
    names = connection.execute("SELECT pubname::text FROM pg_publication ORDER BY 1").fetchall()
    for (name,) in names:
        if (found := find_publication(connection, name)) is not None:
            rows = connection.cursor(row_factory=dict_row).execute(_IDENTITIES, [name])
            tables = tuple(PublishedTable.model_validate(row) for row in rows)
            yield DatabasePublication(database=database, publication=found, tables=tables)


def _service_tables(connection: Connection, connector: Connector) -> Iterator[ServiceTable]:
    for use, table, needs in service_tables(connector):
        asked = {
            "publication": connector.publication,
            "role": connector.told("database.user"),
            "table": unquoted(table),
            "needs": list(needs),
        }
        row = connection.cursor(row_factory=dict_row).execute(_TABLE, asked).fetchone()
        if row is None:
            yield ServiceTable(connector=connector.name, use=use, table=table, present=False)
            continue
        lacks = (*row["lacks"], *(["usage of its schema"] if row["closed"] else []))
        yield ServiceTable(
            connector=connector.name,
            use=use,
            table=row["name"],
            present=True,
            published=row["published"],
            lacks=lacks,
            role=row["role"],
        )


def _closed(part: Part, postgres: PostgresConfig, name: str, error: psycopg.Error) -> Unread:
    told = " ".join(str(error).split())
    refused = "permission denied for database" in told
    grant = f'GRANT CONNECT ON DATABASE "{name}" TO "{postgres.user}"' if refused else None
    return Unread(part=part, name=name, why=told, grant=grant)
