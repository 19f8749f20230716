"""Drills: other servers are down when a recovery begins, or die in the middle of it."""

import pytest

from fixtures.drill import Drill
from fixtures.faults.outages import lose_data_folder
from fixtures.stacks.protocol import Component, Stack
from fixtures.verdict import Verdict
from pipeline.errors import PipelineError
from pipeline.postgres.replay.targets import Target

pytestmark = [pytest.mark.stack, pytest.mark.drill]


@pytest.mark.parametrize(
    "component",
    [
        pytest.param(Component.CONNECT, id="connect"),
        pytest.param(Component.KAFKA, id="kafka", marks=pytest.mark.slow),
        pytest.param(Component.POSTGRES, id="postgres", marks=pytest.mark.slow),
        pytest.param(Component.REGISTRY, id="registry", marks=pytest.mark.slow),
    ],
)
def test_pitr_server_killed_ends_red(drill: Drill, component: Component) -> None:
    """When a server is killed during the recovery, nobody says that it was recovered.

    The server dies as soon as the recovered database is open, and stays down.
    """
    drill.write(acknowledged=500)
    drill.back_up()
    drill.after("open", lambda: drill.service.stack.kill(component))
    with drill.outage(lose_data_folder), pytest.raises(PipelineError):
        drill.recover(Target.parse("latest"))
    drill.finish(expected=Verdict.NOT_VERIFIED)


@pytest.mark.slow
def test_pitr_begins_while_all_else_is_down(drill: Drill) -> None:
    """When a whole site went down, the database comes back first, and CDC once the rest is up.

    Connect, Kafka and registry are down with the database, and are started when it is open again.
    """
    others = (Component.KAFKA, Component.REGISTRY, Component.CONNECT)

    def lose_everything(stack: Stack) -> str:
        for component in reversed(others):
            stack.kill(component)
        return lose_data_folder(stack)

    def start_the_rest() -> None:
        for component in others:
            drill.service.stack.start(component)

    drill.write(acknowledged=1_000)
    drill.back_up()
    drill.write(acknowledged=500)
    drill.after("examine", start_the_rest)
    with drill.outage(lose_everything):
        drill.recover(Target.parse("latest"))
        drill.verify()
    drill.finish()
