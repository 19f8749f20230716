"""CDC around a recovery: which connectors, which publication, and what the gate asks of them."""

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import psycopg

from pipeline.cdc import schema_ids, schemas
from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.debezium import other_connectors, own_connectors
from pipeline.cdc.reconcile import Reconciliation, reconcile, topic_ends, topics_of
from pipeline.cdc.resnapshot import prepare_source, resnapshot, stop_connectors
from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError, ServerError
from pipeline.postgres.replication.publications import Publication, find_publication
from pipeline.postgres.replication.slots import Slot, find_slot
from pipeline.registry.client import RegistryClient
from pipeline.wait import wait_until

Connection = psycopg.Connection[Any]
SETTLES = timedelta(seconds=30)
"""How long a slot may be without its reader behind a restart of its connector."""


def roles(connect: ConnectClient, names: Iterable[str]) -> set[str]:
    """Name the database roles of connectors: a recovery lets them in before the clients."""
    configured = (connect.config(name).get("database.user") for name in names)
    return {user for user in configured if user}


def stopped(config: PipelineConfig) -> dict[str, Any]:
    """Stop this pipeline's connectors; their names, database roles and last offsets."""
    with ConnectClient(config.connect) as connect:
        names = own_connectors(config, connect)
        found = sorted(roles(connect, names))
        offsets = stop_connectors(connect, names)
    told = {name: [asdict(offset) for offset in kept] for name, kept in offsets.items()}
    return {"connectors": names, "roles": found, "offsets": told}


def not_stopped(config: PipelineConfig, names: Iterable[str]) -> str | None:
    """Tell which of these connectors runs again, or None."""
    if not (names := list(names)):
        return None
    with ConnectClient(config.connect) as connect:
        states = {name: connect.status(name).state for name in names}
    again = [f"{name} is {state}" for name, state in states.items() if state != "STOPPED"]
    return f"{'; '.join(again)}, expected STOPPED" if again else None


def source_only(
    config: PipelineConfig, connection: Connection, facts: dict[str, Any]
) -> dict[str, Any]:
    """Give the restored server its publication and a new slot; connectors are not there yet."""
    if facts.get("publication") is None and not published(connection, config.cdc.publication):
        return {"connectors": []}  # a database that no connector reads
    publication = _publication(config, connection, facts)
    prepared = prepare_source(
        connection, publication, config.cdc.slot, like=_slot_of(config, facts)
    )
    return {"slot": prepared.slot.facts(), "mended": prepared.mended, "connectors": []}


def after_restore(
    config: PipelineConfig,
    connection: Connection,
    facts: dict[str, Any],
    recovery: str,
    progress: Callable[[str], None],
    *,
    left_out: Collection[str] = (),
) -> tuple[dict[str, Any], Reconciliation]:
    """Bring CDC back on a restored server that no client can reach yet.

    The order is that of pipeline.cdc.resnapshot, beginning with the connectors: a run that was
    interrupted here may have left them running, and a slot that is read cannot be dropped. Topics
    in `left_out` are not compared with their tables. Returns what was done, for the journal.
    """
    with ConnectClient(config.connect) as connect:
        names = own_connectors(config, connect)
        stop_connectors(connect, names)
        for name, reads in other_connectors(config, connect).items():
            progress(f"  {name} is left alone: it reads {reads}")
    prepared = prepare_source(
        connection,
        _publication(config, connection, facts),
        config.cdc.slot,
        like=_slot_of(config, facts),
    )
    tables = [str(table) for table in published(connection, config.cdc.publication)]
    since = topic_ends(config, tables)
    with ConnectClient(config.connect) as connect:
        for name in names:
            progress(f"  {name} reads every row again")
            resnapshot(connect, connection, name, config.cdc.slot)
    found = reconcile(config, since=since, recovery=recovery, left_out=left_out)
    if found.missing:
        raise ServerError(
            f"{found.missing} rows have no event after the re-snapshot: "
            + "; ".join(f"{t.table}: {t.missing_examples}" for t in found.topics if t.missing)
        )
    return {"slot": prepared.slot.facts(), "mended": prepared.mended, "connectors": names}, found


def _slot_of(config: PipelineConfig, facts: dict[str, Any]) -> Slot | None:
    """Our slot as the backup knew it, for its flags."""
    known = (Slot.of(one) for one in facts.get("slots", ()))
    return next((slot for slot in known if slot.name == config.cdc.slot), None)


def _publication(
    config: PipelineConfig, connection: Connection, facts: dict[str, Any]
) -> Publication:
    """The publication as the backup knew it, else as the restored database has it."""
    known = facts.get("publication")
    if known is not None and known["name"] == config.cdc.publication:
        return Publication.of(known)
    if (found := find_publication(connection, config.cdc.publication)) is not None:
        return found
    there = "none" if known is None else repr(known["name"])
    raise ConfigError(
        f"publication {config.cdc.publication!r} is not in the restored database, and the backup "
        f"has {there}: set cdc.publication to the one that the connector reads, and --resume"
    )


def published(connection: Connection, publication: str) -> list[str]:
    """Name the published tables, with their schemas."""
    rows = connection.execute(
        "select schemaname || '.' || tablename from pg_publication_tables"
        " where pubname = %s order by 1",
        [publication],
    )
    return [row[0] for row in rows]


def problems(
    config: PipelineConfig, connection: Connection, left_out: Collection[str] = ()
) -> list[str]:
    """Ask the pipeline whether clients may be let in; one sentence for each thing that is wrong.

    Records of topics in `left_out` are not held against the registry.

    That the slot's reader confirmed the end of the WAL is not asked: where nobody writes to a
    published table it never does, and `reconcile` has compared every key already.
    """
    told = []

    def unread() -> str | None:
        found = find_slot(connection, config.cdc.slot)
        return None if found is not None and found.active else "it has no reader"

    with suppress(ServerError):  # Debezium opens its slot twice when it starts
        wait_until(f"slot {config.cdc.slot!r}", unread, within=SETTLES)
    slot = find_slot(connection, config.cdc.slot)
    if slot is None or not slot.active:
        told.append(f"slot {config.cdc.slot!r} has no reader")
    elif slot.lost:
        told.append(f"slot {slot.name!r}: {slot.lost}")
    with ConnectClient(config.connect) as connect:
        told += [
            f"{name}: {trouble}"
            for name in own_connectors(config, connect)
            if (trouble := connect.status(name).trouble)
        ]
    topics = topics_of(config, published(connection, config.cdc.publication), left_out)
    with RegistryClient(config.registry) as registry:
        told += schema_ids.problems(config, registry, topics, then=schemas.known(config))
    return told


def problems_of_services(config: PipelineConfig, topics: Collection[str]) -> list[str]:
    """Ask the registry, where there is one, for the ids in records of topics that no CDC feeds."""
    if not topics or not config.registry.url:
        return []
    then = schemas.known(config)
    with RegistryClient(config.registry) as registry:
        return schema_ids.problems(config, registry, topics, then=then, services=topics)
