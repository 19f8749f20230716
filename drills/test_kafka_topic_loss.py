"""Drills: topics, or the offsets of their readers, are lost while clients write all the while."""

from collections.abc import Iterator
from random import Random

import pytest

from fixtures.drill import Drill
from fixtures.faults.outages import Outage
from fixtures.faults.topics import (
    damage_log_segment,
    damage_topic_archive,
    delete_records,
    delete_topics,
    lose_broker_folder,
    lose_group_offsets,
    recreate_topic,
    retention_set_wrong,
)
from fixtures.stacks.protocol import Component
from fixtures.topic_drill import TopicDrill, opened
from fixtures.verdict import Verdict
from pipeline.errors import LossNotAccepted, PipelineError
from pipeline.runbooks.topic_asked import Way

pytestmark = [pytest.mark.stack, pytest.mark.drill]
nightly = pytest.mark.slow
ORDERS = "shop.public.orders"


@pytest.fixture
def story(drill: Drill) -> Iterator[TopicDrill]:
    """A shop whose services produce too, with two groups of readers."""
    with opened(drill) as running:
        yield running


def begin(story: TopicDrill) -> None:
    """Write, let groups read, archive, write on."""
    story.write(acknowledged=2_000)
    story.read("billing", [ORDERS, "clicks"], records=120)
    story.back_up()
    story.write(acknowledged=1_000)


def test_topic_loss_deleted(story: TopicDrill) -> None:
    """After an operator deleted topics, no acknowledged row is missing from what CDC feeds.

    A topic that CDC feeds and one of a service's own are deleted. The archive comes back to its old
    offsets; what CDC had sent since is read again from the database. What the service produced
    after the archive is lost, within the objective.
    """
    begin(story)
    with story.outage(delete_topics(ORDERS, "clicks")):
        story.recover(ORDERS, "clicks")
        story.verify()
    assert story.drill.duplicates == 0
    story.finish()


@nightly
def test_topic_loss_deleted_and_read_again(story: TopicDrill) -> None:
    """After an operator deleted a topic that CDC feeds, the database alone brings it back.

    No archive is used: every row is read again, and what has no row is buried.
    """
    begin(story)
    with story.outage(delete_topics(ORDERS)):
        story.recover(ORDERS, way=Way.CDC)
        story.verify()
    story.finish()


@pytest.mark.parametrize(
    ("topics", "fault"),
    [
        pytest.param((ORDERS, "clicks"), delete_records(ORDERS, "clicks"), id="records-deleted"),
        pytest.param(("clicks",), retention_set_wrong("clicks"), id="retention-set-wrong"),
    ],
)
@nightly
def test_topic_loss_records_gone(story: TopicDrill, topics: tuple[str, ...], fault: Outage) -> None:
    """After the records of topics were deleted, what the archive holds is in its place again.

    What was written since is kept first, and goes behind the archive at its own offsets.
    """
    begin(story)
    with story.outage(fault):
        story.recover(*topics)
        story.verify()
    assert story.drill.duplicates == 0
    story.finish()


@nightly
def test_topic_loss_older_records_gone(story: TopicDrill) -> None:
    """After older records of a CDC topic were deleted, its events go on, and no row is read again.

    Archive and topic overlap: together they hold every event up to where the connector stopped.
    """
    begin(story)
    with story.outage(delete_records(ORDERS, share=0.1)):
        story.recover(ORDERS)
        story.verify()
    assert story.reread is False
    assert story.drill.duplicates == 0
    story.finish()


@nightly
def test_topic_loss_segment_damaged(story: TopicDrill, seed: int) -> None:
    """After a bit turned in a topic's log, every record is readable again."""
    begin(story)
    with story.outage(damage_log_segment("clicks", Random(seed))):
        with pytest.raises(LossNotAccepted, match="--lose clicks"):
            story.recover("clicks")
        story.recover("clicks", lose=["clicks"])
        story.verify()
    story.finish()


@nightly
def test_topic_loss_recreated_with_other_partitions(story: TopicDrill) -> None:
    """After somebody made a topic again with two partitions, it has one, and every row."""
    begin(story)
    with story.outage(recreate_topic(ORDERS, 2)):
        story.recover(ORDERS)
        story.verify()
    story.finish()


@nightly
def test_topic_loss_broker_folder(story: TopicDrill) -> None:
    """After the broker lost its disk, everything comes back: Connect's state, registry, topics.

    Workers and registry keep their state in topics. Those come back first, then the two servers
    are started, then what they serve.
    """
    begin(story)
    with story.outage(lose_broker_folder):
        with story.stopped(Component.CONNECT, Component.REGISTRY):
            story.bring_back(*story.internal_topics())
        story.recover(*story.shop_topics())
        story.verify()
    story.finish()


@nightly
def test_topic_loss_group_offsets(story: TopicDrill) -> None:
    """After the offsets of a group were deleted, it reads on where the last backup knew it."""
    begin(story)
    with story.outage(lose_group_offsets("billing")):
        story.recover()
        story.verify()
    assert set(story.moved) == {"billing"}
    assert all("the next record is the one" in told for told in story.moved["billing"])
    story.finish()


@nightly
def test_topic_loss_damaged_archive_ends_red(story: TopicDrill, seed: int) -> None:
    """From a damaged archive nothing is brought back, and nothing that is left is removed."""
    begin(story)
    damage_topic_archive(story.drill.service.stack, Random(seed))
    with (
        story.outage(delete_records("clicks")),
        pytest.raises(PipelineError, match=r"the archive .* is damaged"),
    ):
        story.recover("clicks")
    story.finish(expected=Verdict.NOT_VERIFIED)
