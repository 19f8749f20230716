"""Drills: the whole site is lost, all volumes of database, brokers, Connect and registry."""

from random import Random

import pytest

from fixtures.drill import Drill
from fixtures.faults.files import flipped
from fixtures.faults.outages import lose_data_folder
from fixtures.faults.topics import damage_topic_archive, lose_broker_folder
from fixtures.stacks.protocol import Component, Stack
from fixtures.verdict import Verdict
from pipeline.errors import RecoveryRefused
from pipeline.postgres.replay.targets import Target
from pipeline.runbooks.full import FullRecovery

pytestmark = [pytest.mark.stack, pytest.mark.drill, pytest.mark.slow]
LATEST = Target.parse("latest")
SERVERS = (Component.REGISTRY, Component.CONNECT)


class Cut(BaseException):
    """The plug is pulled."""


def lose_everything(stack: Stack) -> str:
    """Lose every volume but the repository's; new brokers run, empty, and all else is down."""
    for component in reversed(SERVERS):  # their state is in topics, and goes with the brokers
        stack.kill(component)
    return f"{lose_broker_folder(stack)}; {lose_data_folder(stack)}"


@pytest.fixture
def story(drill: Drill) -> Drill:
    """Clients write, everything is backed up as one, clients write on."""
    drill.scenario = "full_pipeline"
    drill.after("groups", lambda: start_servers(drill))
    drill.write(acknowledged=1_000)
    drill.back_up_all()
    drill.write(acknowledged=500)
    return drill


def start_servers(drill: Drill) -> None:
    """Do as the recovery says: Connect and the registry find their topics again."""
    for component in SERVERS:
        drill.service.stack.start(component)


def test_full_pipeline_lost(story: Drill) -> None:
    """After the loss of everything but the repository, no acknowledged row is missing anywhere.

    The database comes back to its last second, for its WAL was streamed; the topics to their
    archive, and behind it by reading every row again; groups, connectors and registry with them.
    """
    with story.outage(lose_everything):
        story.recover(LATEST, by=FullRecovery)
        story.verify()
    story.finish()
    assert story.lost() == 0


@pytest.mark.parametrize("step", ["fence", "restore", "open", "topics", "groups", "reconnect"])
def test_full_pipeline_cut_and_resumed(story: Drill, step: str) -> None:
    """After a second disaster in the middle of the recovery, it goes on to the same end."""

    def cut() -> None:
        if step == "groups":
            start_servers(story)
        raise Cut

    story.after(step, cut)
    with story.outage(lose_everything):
        with pytest.raises(Cut):
            story.recover(LATEST, by=FullRecovery)
        story.recover(LATEST, by=FullRecovery, resume=story.journal)
        story.verify()
    story.finish()


def test_full_pipeline_newest_base_damaged(story: Drill, seed: int) -> None:
    """After the loss of everything, with the newest base backup damaged too, all rows are back."""
    older = story.backup
    newest = story.back_up()
    path = story.service.config.repository.path / newest.manifest.objects[0].key
    path.chmod(0o600)
    path.write_bytes(flipped(path.read_bytes(), Random(seed)))
    with story.outage(lose_everything):
        story.recover(LATEST, by=FullRecovery)
        story.backup = older
        story.verify()
    assert older is not None
    assert story.restored_from() == older.label
    story.finish()


def test_full_pipeline_archive_damaged_ends_red(story: Drill, seed: int) -> None:
    """From a repository that lost records of a topic nothing is begun, and the loss is named."""
    damage_topic_archive(story.service.stack, Random(seed))
    with (
        story.outage(lose_everything),
        pytest.raises(RecoveryRefused, match=r"nothing was touched:\n.*topics: .* is damaged"),
    ):
        story.recover(LATEST, by=FullRecovery)
    story.finish(expected=Verdict.NOT_VERIFIED)
