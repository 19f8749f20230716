"""Drills: the schema registry is lost, emptied or filled anew, under topics that were kept."""

from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from fixtures.drill import Drill
from fixtures.drill_registry import RegistryDrill
from fixtures.faults.outages import Outage
from fixtures.faults.registry_outages import (
    another_came_first,
    empty_beneath,
    empty_registry,
    leave_in_mode,
    lose_registry,
)
from fixtures.service import CONNECTOR
from fixtures.stacks.protocol import Component, Stack
from fixtures.verdict import Verdict
from pipeline.cdc.connectors import ConnectClient
from pipeline.errors import RecoveryRefused
from pipeline.registry.client import RegistryClient
from pipeline.runbooks.registry_asked import Way
from pipeline.wait import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.drill]
nightly = pytest.mark.slow
WITHIN = timedelta(seconds=30)


@pytest.fixture
def story(drill: Drill) -> RegistryDrill:
    """A shop whose registry holds a schema for keys and values of each table."""
    found = RegistryDrill(drill)
    drill.write(acknowledged=1_000)
    found.back_up()
    drill.write(acknowledged=500)
    return found


@pytest.mark.parametrize(
    ("fault", "way"),
    [
        pytest.param(empty_registry, Way.EXPORT, id="emptied"),
        pytest.param(lose_registry, Way.STORAGE, id="topic-deleted", marks=nightly),
        pytest.param(empty_beneath(1), Way.STORAGE, id="emptied-beneath", marks=nightly),
        pytest.param(empty_beneath(0.5), Way.STORAGE, id="cut-beneath", marks=nightly),
        pytest.param(leave_in_mode("IMPORT"), Way.EXPORT, id="left-in-import", marks=nightly),
        pytest.param(leave_in_mode("READONLY"), Way.EXPORT, id="left-read-only", marks=nightly),
    ],
)
def test_schema_registry_lost(story: RegistryDrill, fault: Outage, way: Way) -> None:
    """After the schema registry was lost, every record is read by the schema that wrote it.

    The topics are whole, and bytes without it. The connector goes on meanwhile with the ids that
    it remembers, until it is stopped; afterwards it asks the registry for each.
    """
    with story.drill.outage(fault):
        story.drill.write(acknowledged=300)
        story.recover(way)
        story.verify()
    story.drill.finish()


@nightly
def test_schema_registry_filled_by_another(story: RegistryDrill) -> None:
    """After somebody took an old id in an emptied registry, nothing is merged with that.

    A careless import over it would give two schemas one id. It is refused, with or without
    merging, before anything is written. Emptied once more, the registry is whole again.
    """
    with story.drill.outage(another_came_first):
        for merge in (False, True):
            with pytest.raises(RecoveryRefused, match="contradict the backup"):
                story.recover(Way.EXPORT, merge=merge)
        empty_registry(story.drill.service.stack)
        story.recover(Way.EXPORT)
        story.verify()
    story.drill.finish()


@nightly
def test_schema_registry_registered_again_ends_red(story: RegistryDrill) -> None:
    """After producers registered again in an emptied registry, nobody says that it was recovered.

    Their records carry ids that stand for two schemas now: nothing may be merged silently.
    """

    def emptied_and_registered_again(stack: Stack) -> str:
        told = another_came_first(stack)
        with ConnectClient(stack.config.connect) as connect:
            connect.restart(CONNECTOR, only_failed=False)
            connect.wait_running(CONNECTOR)
        story.drill.write(acknowledged=300)
        story.drill.service.wait_delivered()
        return f"{told}; the connector registered its schemas again"

    with story.drill.outage(emptied_and_registered_again):
        with pytest.raises(RecoveryRefused, match="contradict the backup"):
            story.recover(Way.EXPORT, merge=True)
        assert any(one.startswith("registry.") for one in story.drill.wrong())
    story.drill.finish(expected=Verdict.NOT_VERIFIED)


@nightly
def test_schema_registry_down_during_a_change(story: RegistryDrill) -> None:
    """A table that changed while the registry was down stops its connector until it is restarted.

    The task fails, and does not come back by itself when the registry does. No event is lost.
    """
    with story.drill.outage(_column_added_while_it_is_down(story)):
        stack = story.drill.service.stack
        stack.start(Component.REGISTRY)
        with pytest.raises(RecoveryRefused, match="nothing is wrong with the registry"):
            story.recover(Way.EXPORT)
        story.restart_tasks()
        with RegistryClient(stack.config.registry) as registry:
            assert registry.versions("shop.public.documents-value") == [1, 2]
        story.verify()
    story.drill.finish()


def _column_added_while_it_is_down(story: RegistryDrill) -> Outage:
    def inject(stack: Stack) -> str:
        stack.kill(Component.REGISTRY)
        with story.drill.service.connect() as connection:
            _add_column(connection)
        story.drill.observer.added["documents"] = ["source"]
        story.drill.service.workload.resume()
        with ConnectClient(stack.config.connect) as connect:

            def not_failed() -> str | None:
                states = [task.state for task in connect.status(CONNECTOR).tasks]
                return None if states == ["FAILED"] else f"tasks are {states}"

            wait_until("the task fails", not_failed, within=WITHIN)
        return "the registry was killed, a column added, and the connector's task failed"

    return inject


def _add_column(connection: psycopg.Connection[Any]) -> None:
    connection.execute(sql.SQL("ALTER TABLE documents ADD COLUMN source text"))
