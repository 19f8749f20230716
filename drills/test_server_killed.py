"""Drills: another server dies in the middle of a recovery. The verdict must not notice less."""

import pytest

from fixtures.drill import Drill
from fixtures.faults.outages import lose_data_folder
from fixtures.stacks.protocol import Component
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
