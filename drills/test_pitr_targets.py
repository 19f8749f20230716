"""Drills: recovery targets that an operator gets wrong, or that lie in awkward places."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from fixtures.drill import Drill
from fixtures.faults.outages import drop_table
from pipeline.errors import ConfigError, PipelineError, TargetUnreachable
from pipeline.postgres.replay.targets import Target

pytestmark = [pytest.mark.stack, pytest.mark.drill, pytest.mark.slow]


def at(moment: datetime) -> str:
    return f"time:{moment.astimezone(UTC).isoformat()}"


@pytest.mark.parametrize(
    ("wrong", "refusal", "told"),
    [
        pytest.param(
            lambda moment: f"time:{moment:%Y-%m-%dT%H:%M:%S}",
            ConfigError,
            "needs its offset from UTC",
            id="no-time-zone",
        ),
        pytest.param(
            lambda moment: at(moment - timedelta(hours=1)),
            TargetUnreachable,
            "consistent only from",
            id="before-the-backup",
        ),
        pytest.param(
            lambda moment: at(moment + timedelta(hours=1)),
            TargetUnreachable,
            "beyond the archive",
            id="beyond-the-archive",
        ),
    ],
)
def test_pitr_wrong_target(
    drill: Drill, wrong: Callable[[datetime], str], refusal: type[PipelineError], told: str
) -> None:
    """A target in the wrong time zone is refused before anything is touched, the right one works.

    The operator means a quiet moment before the table was dropped, and first spells it wrongly.
    """
    drill.write(acknowledged=2_000)
    drill.back_up()
    drill.write(acknowledged=500)
    meant = drill.quiet_moment()
    with drill.outage(drop_table("orders")):
        with pytest.raises(refusal, match=told):
            drill.recover(Target.parse(wrong(meant)))
        with drill.service.connect():
            pass  # still up: a refused target fences nothing
        drill.recover(Target.parse(at(meant)))
        drill.verify()
    drill.finish()


def test_pitr_inside_a_long_transaction(drill: Drill) -> None:
    """A transaction that was open at the target is not there, whenever it had begun.

    It begins before the target and commits after it; its rows must not come back by halves.
    """
    drill.write(acknowledged=2_000)
    with drill.service.connect() as connection:
        connection.execute("CREATE TABLE long_story (line text)")
    drill.back_up()
    with psycopg.connect(**drill.service.config.postgres.conninfo()) as story:
        story.execute("INSERT INTO long_story VALUES ('before the target')")
        meant = drill.quiet_moment()
        story.execute("INSERT INTO long_story VALUES ('after it')")
    with drill.outage(drop_table("orders")):
        drill.recover(Target.parse(at(meant)))
        with drill.service.connect() as connection:
            assert connection.execute("SELECT line FROM long_story").fetchall() == []
        drill.verify()
    drill.finish()


def test_pitr_before_the_end_of_the_newest_backup(drill: Drill) -> None:
    """A target that lies before the newest backup was consistent is reached from an older one."""
    drill.write(acknowledged=1_000)
    older = drill.back_up()
    drill.write(acknowledged=500)
    meant = drill.quiet_moment()
    newer = drill.back_up()
    with drill.outage(drop_table("orders")):
        drill.recover(Target.parse(at(meant)))
        assert older.label != newer.label
        assert drill.restored_from() == older.label
        drill.verify()
    drill.finish()
