"""Whether CDC is up: connectors and tasks that run, and a slot that one of them reads."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from random import Random

from psycopg import sql

from checks.check import Observation, check
from checks.connectors import Connectors
from fixtures.connect_material import connector
from fixtures.faults import connectors, server
from fixtures.scratch import Damage, Scratch
from pipeline.cdc.connectors import ConnectorMissing
from pipeline.postgres.replication.slots import find_slot
from pipeline.wait import wait_until

POLL = timedelta(milliseconds=200)
SETTLES = timedelta(seconds=10)
"""A worker takes up a task, and a task its slot, within this; what takes longer is down."""
FOR_GOOD = ("FAILED", "PAUSED", "STOPPED", "no such connector")
"""What no waiting ends: somebody must act."""


@check(
    "cdc.connectors-running",
    on=Connectors,
    severity="blocker",
    advice="CDC is down, and WAL is kept for it: mend what is named here, then `POST /connectors/"
    "NAME/restart?includeTasks=true&onlyFailed=true`, or `PUT /connectors/NAME/resume` where "
    "somebody paused or stopped it. docs/procedures.md, scenario 2.",
)
def connectors_running(connectors: Connectors) -> Iterator[Observation]:
    """Each connector of the pipeline runs, with every task of it, and its slot is being read."""
    slot, troubled = connectors.source.config.cdc.slot, not connectors.names
    yield Observation(slot, "no connector reads this slot" if troubled else None)
    for name in connectors.names:
        trouble = _lasting(name, partial(_trouble, connectors, name))
        troubled = troubled or trouble is not None
        yield Observation(name, trouble)
    if not troubled:  # else nobody wonders that it is not read
        yield Observation(slot, _lasting(slot, partial(_unread, connectors, slot)))


def _lasting(what: str, look: Callable[[], str | None]) -> str | None:
    """What is wrong for good, or still is when a rebalance or a reconnect would be over."""
    told: list[str | None] = []
    until = time.monotonic() + SETTLES.total_seconds()

    def passing() -> str | None:
        told.append(trouble := look())
        final = trouble is None or any(word in trouble for word in FOR_GOOD)
        return None if final or time.monotonic() > until else trouble

    wait_until(f"{what} settles", passing, within=2 * SETTLES, every=POLL)
    return told[-1]


def _trouble(connectors: Connectors, name: str) -> str | None:
    if name not in connectors.every:
        return "Connect has no such connector of a PostgreSQL"
    try:
        return connectors.trouble(name)
    except ConnectorMissing:
        return "no worker has told of it yet"


def _unread(connectors: Connectors, name: str) -> str | None:
    """Why nothing arrives although all is RUNNING; before its first offset it reads rows."""
    with connectors.source.connection() as connection:
        slot = find_slot(connection, name)
    if slot is None or slot.active or any(connectors.offset(one) is None for one in connectors.own):
        return None
    return "every task says RUNNING, and nobody reads it"


@connectors_running.detects
def task_failed(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """A transform that cannot work: Connect goes on saying that the connector runs."""
    connectors.reconfigure(
        scratch,
        transforms="short",
        transforms_short_type="org.apache.kafka.connect.transforms.ExtractField$Value",
        transforms_short_field="of_another_table",
    )
    connectors.wait_for(scratch, "FAILED")
    return Damage(connector(scratch.config), "its task failed", says="Unknown field")


@connectors_running.detects
def connector_paused(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """Paused for maintenance, and forgotten."""
    with connectors.own(scratch) as client:
        client.pause(connector(scratch.config))
    connectors.wait_for(scratch, "PAUSED")
    return Damage(connector(scratch.config), "it was paused", says="PAUSED")


@connectors_running.detects
def connector_stopped(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """Stopped to change its offsets, and not resumed."""
    connectors.stop(scratch)
    return Damage(connector(scratch.config), "it was stopped", says="STOPPED")


@connectors_running.detects
def connector_deleted(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """A deployment that lists its connectors, and left this one out."""
    with connectors.own(scratch) as client:
        client.delete(connector(scratch.config))
    return Damage(connector(scratch.config), "it was deleted", says="no such connector")


@connectors_running.detects
def connector_reads_another_slot(scratch: Scratch[Connectors], _rng: Random) -> Damage:
    """A slot that was made by hand to be rid of an error; WAL is kept for the old one."""
    slot = scratch.config.cdc.slot
    make = sql.SQL("select pg_create_logical_replication_slot({}, 'pgoutput')")
    server.execute(scratch, make.format(f"{slot}_2"))
    connectors.reconfigure(scratch, slot_name=f"{slot}_2")
    return Damage(slot, f"the connector reads {slot}_2", says="nobody reads it")
