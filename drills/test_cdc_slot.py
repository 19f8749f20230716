"""Drills: slot, publication, connector or offsets are in trouble while clients write."""

from collections.abc import Iterator
from functools import partial

import pytest

from fixtures.cdc_drill import CdcDrill, opened, use_outbox
from fixtures.drill import Drill
from fixtures.faults import cdc
from fixtures.faults.outages import Outage
from pipeline.errors import LossNotAccepted, RecoveryRefused
from pipeline.runbooks.cdc import Asked, Way

pytestmark = [pytest.mark.stack, pytest.mark.drill]
nightly = pytest.mark.slow


@pytest.fixture
def story(drill: Drill) -> Iterator[CdcDrill]:
    """A shop, and a control slot beside the one under test."""
    with opened(drill) as running:
        yield running


def begin(story: CdcDrill) -> None:
    """Write, back the state up, write on."""
    story.write(acknowledged=1_500)
    story.back_up()
    story.write(acknowledged=500)


def test_cdc_slot_dropped(story: CdcDrill) -> None:
    """After an operator dropped the slot, no acknowledged row is missing from the topics.

    The connector was stopped for it, and resumed: it made itself a new slot, and its task stopped
    at the gap. Publication and slot are made again, every row is read again, and what was deleted
    meanwhile is buried. States in between are lost, and counted against a control slot.
    """
    begin(story)
    with story.outage(cdc.drop_slot_of_worker):
        story.recover()
        events = story.verify()
    assert story.reread is True
    assert (events.phantom, events.lost > 0) == (0, True)
    story.finish()


@nightly
def test_cdc_slot_dropped_archive_at_hand(story: CdcDrill) -> None:
    """After an operator dropped the slot, base backup and archive at hand, no event is lost.

    The stretch that no slot held is decoded again, and Debezium tells what is in no topic: deletes,
    states in between, and rows of an outbox that no table holds any more, each once, as a control
    slot says that was never dropped.
    """
    story.add_outbox()
    story.write(acknowledged=500)
    story.drill.back_up()
    begin(story)
    with story.outage(partial(cdc.drop_slot_of_worker, meanwhile=use_outbox)):
        story.recover()
        events = story.verify()
    assert story.reread is False
    assert (events.lost, events.duplicated, events.phantom, events.read_again) == (0, 0, 0, 0)
    story.finish()


@pytest.mark.parametrize(
    ("fault", "reread"),
    [
        pytest.param(cdc.kill_worker, False, id="worker-killed"),
        pytest.param(cdc.lose_slot_by_its_limit, True, id="slot-invalidated"),
        pytest.param(cdc.delete_offsets, True, id="offsets-deleted"),
        pytest.param(cdc.patch_offset_behind, True, id="offset-behind"),
        pytest.param(cdc.unpublish("orders"), True, id="publication-lost-a-table"),
        pytest.param(cdc.lose_topics_of_worker, True, id="topics-of-connect-lost"),
    ],
)
@nightly
def test_cdc_in_trouble(story: CdcDrill, fault: Outage, *, reread: bool) -> None:
    """After each trouble of CDC, every acknowledged row is in its topic, and nothing else is.

    Where slot and offset are sound the connector goes on, and no event is lost. Else rows are read
    again, and the events that no row tells are counted.
    """
    begin(story)
    with story.outage(fault):
        story.recover()
        events = story.verify()
    assert story.reread is reread
    assert events.phantom == 0
    assert reread or events.lost == 0
    story.finish()


@nightly
def test_cdc_connector_deleted(story: CdcDrill) -> None:
    """After an operator deleted the connector, it is made again STOPPED, and goes on.

    Its offset outlived it, and the slot kept everything: no event is lost.
    """
    begin(story)
    with story.outage(cdc.delete_connector):
        story.recover()
        events = story.verify()
    assert (story.reread, events.lost, events.phantom) == (False, 0, 0)
    story.finish()


@nightly
def test_cdc_offset_ahead(story: CdcDrill) -> None:
    """After an operator set the offset ahead, the checks tell of the gap that Debezium hides.

    The connector runs on, and slot and offset look sound: only the topics lack events.
    """
    begin(story)
    with story.outage(cdc.patch_offset_ahead):
        assert story.hidden_gap(), "a live check tells that rows have no event"
        story.recover(Asked(way=Way.REREAD))
        events = story.verify()
    assert (events.phantom, events.lost > 0) == (0, True)
    story.finish()


@nightly
def test_cdc_slot_held(story: CdcDrill) -> None:
    """After a hung process took the slot, it is named, ended by its number, and events go on."""
    begin(story)
    with (
        cdc.held_slot(story.drill.service.stack) as (pid, told),
        story.outage(lambda _stack: told),
    ):
        # beforehand where its task has given up by then, else once the connector is stopped
        with pytest.raises((RecoveryRefused, LossNotAccepted), match=f"by process {pid}"):
            story.recover()
        story.recover(Asked(terminate=pid))
        events = story.verify()
    assert (story.reread, events.lost, events.phantom) == (False, 0, 0)
    story.finish()


@nightly
def test_cdc_two_readers(story: CdcDrill) -> None:
    """After a copy of the connector read its slot, both are named, and the gap is read again.

    What the copy confirmed was never sent to the first one's topics. Nothing is touched before the
    operator removed the copy.
    """
    begin(story)
    with story.outage(cdc.add_reader):
        with pytest.raises(RecoveryRefused, match="is read by copy and shop"):
            story.recover()
        cdc.remove_reader(story.drill.service.stack)
        story.recover()
        events = story.verify()
    assert (story.reread, events.phantom, events.lost > 0) == (True, 0, True)
    story.finish()
