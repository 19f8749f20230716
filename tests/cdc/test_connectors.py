"""The REST client against a real worker: states, offsets, and errors that say what and where."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from checks import rules
from checks.check import Outcome
from checks.connectors import Connectors
from fixtures.stacks.protocol import Stack
from pipeline.cdc.connectors import ConnectClient, ConnectorMissing
from pipeline.cdc.debezium import own_connectors
from pipeline.cdc.state.connect import StoredOffset
from pipeline.errors import ServerError
from pipeline.wait import wait_until
from tests.cdc.source import Source, captured, records

pytestmark = pytest.mark.stack

FIT = "offsets-fit-their-slots"


@pytest.fixture
def source(stack: Stack) -> Iterator[Source]:
    with captured(stack, "connectors", "id int PRIMARY KEY", "VALUES (1)") as made:
        yield made


def test_offsets_go_backwards_and_the_events_come_again(source: Source) -> None:
    """PATCH of an earlier offset repeats what the slot still holds."""
    connect, name = source.connect, source.name
    source.run("INSERT INTO {} VALUES (2)")
    source.wait_delivered()
    connect.pause(name)
    with pytest.raises(ServerError, match=r"HTTP 400.*offsets"):
        connect.delete_offsets(name)
    connect.stop(name)
    connect.wait_stopped(name)
    [last] = connect.offsets(name)
    assert StoredOffset(partition={}, offset=last.offset).lsn
    connect.patch_offsets(name, [replace(last, offset=last.offset | {"txId": 1})])
    assert connect.offsets(name)[0].offset["txId"] == 1
    connect.resume(name)
    connect.wait_running(name)
    source.run("INSERT INTO {} VALUES (3)")
    source.wait_delivered()
    assert len(records(source.config, source.topic)) == 3


def test_a_connector_that_streams_raises_no_alarm(source: Source) -> None:
    """Its offset and its slot move on while they are looked at."""
    names = ("connectors-keep-their-slot", "connectors-running", FIT)
    checks = [rules.CATALOGUE[f"cdc.{name}"] for name in names]
    for number in range(2, 8):
        source.run(f"INSERT INTO {{}} VALUES ({number})")
        for check in checks:
            seen = check.run(lambda: Connectors.of(source.config))
            assert seen.outcome is Outcome.PASS, seen
        source.run(f"INSERT INTO {{}} VALUES (-{number})")  # an end that was read now is a commit's
        source.wait_delivered()
    assert Connectors.of(source.config).offset(source.name), "there was something to look at"


def test_a_connector_that_stopped_amid_changes_skips_none(source: Source) -> None:
    """Its slot may be told less than its offset says, and still holds what arrived."""
    for number in range(2, 200):
        source.run(f"INSERT INTO {{}} VALUES ({number})")
    source.connect.stop(source.name)
    source.connect.wait_stopped(source.name)
    with source.connection.transaction():  # behind the offset, and not skipped either
        source.run("INSERT INTO {} VALUES (200)")
    seen = rules.CATALOGUE[f"cdc.{FIT}"].run(lambda: Connectors.of(source.config))
    assert seen.outcome is Outcome.PASS, seen


def test_a_configured_connector_that_is_not_there_is_named(source: Source) -> None:
    named = source.config.connect.model_copy(update={"connectors": (source.name, "nobody")})
    config = source.config.model_copy(update={"connect": named})
    seen = rules.CATALOGUE["cdc.connectors-keep-their-slot"].run(lambda: Connectors.of(config))
    assert [each.subject for each in seen.problems] == ["nobody"]


def test_a_connector_is_ours_by_its_slot_and_its_database(source: Source) -> None:
    """Debezium's own name of the slot counts where none is set; elsewhere it is another slot."""
    told = source.connect.config(source.name)
    unnamed = {key: value for key, value in told.items() if key != "slot.name"}
    there = {"name": "elsewhere", "database.dbname": "template1", "topic.prefix": "elsewhere"}
    slot = source.config.cdc.model_copy(update={"slot": "debezium"})
    config = source.config.model_copy(update={"cdc": slot})
    try:
        for name, changes in (("here", {"name": "here"}), ("elsewhere", there)):
            source.connect.create(name, unnamed | changes, stopped=True)
        ours = set(own_connectors(config, source.connect))
        assert ours & {source.name, "here", "elsewhere"} == {"here"}
    finally:
        for name in {"here", "elsewhere"} & set(source.connect.names()):
            source.connect.delete(name)


def test_a_failed_task_is_told_and_stays_failed_until_it_is_restarted(source: Source) -> None:
    """The connector itself goes on saying RUNNING."""
    connect, name = source.connect, source.name
    good = connect.config(name)
    connect.put_config(name, good | {"publication.name": "nobody_made_it"})

    def failed() -> str | None:
        trouble = connect.status(name).trouble
        return None if "task 0 is FAILED" in str(trouble) else str(trouble)

    wait_until("the task fails", failed, within=timedelta(seconds=20))
    assert connect.status(name).state == "RUNNING"
    connect.put_config(name, good)
    connect.restart(name)
    connect.wait_running(name)


def test_an_unknown_connector_is_named(stack: Stack) -> None:
    with ConnectClient(stack.config.connect) as connect:
        assert "nobody" not in connect.names()
        with pytest.raises(ConnectorMissing, match=r"GET .*/connectors/nobody/config: HTTP 404"):
            connect.config("nobody")


def test_a_worker_that_does_not_answer_is_named() -> None:
    with (
        ConnectClient("http://127.0.0.1:1", timedelta(0)) as connect,
        pytest.raises(ServerError, match=r"GET http://127\.0\.0\.1:1/connectors"),
    ):
        connect.names()
