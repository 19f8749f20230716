"""What Kafka refuses for the moment is asked for again; what it refuses for good is not."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException
from kafka.errors import KafkaConnectionError, for_code

from pipeline.errors import ServerError
from pipeline.kafka.cluster import momentary, topics
from pipeline.kafka.cluster.momentary import ask_again, ask_each, passes
from pipeline.kafka.cluster.wire import Disconnected, Refused
from pipeline.kafka.log.place import Place

SOON = timedelta(milliseconds=300)
MOMENTARY = {
    5: "LEADER_NOT_AVAILABLE",
    6: "NOT_LEADER_OR_FOLLOWER",
    7: "REQUEST_TIMED_OUT",
    8: "BROKER_NOT_AVAILABLE",
    9: "REPLICA_NOT_AVAILABLE",
    13: "NETWORK_EXCEPTION",
    14: "COORDINATOR_LOAD_IN_PROGRESS",
    15: "COORDINATOR_NOT_AVAILABLE",
    16: "NOT_COORDINATOR",
    41: "NOT_CONTROLLER",
    56: "KAFKA_STORAGE_ERROR",
    74: "FENCED_LEADER_EPOCH",
    75: "UNKNOWN_LEADER_EPOCH",
    78: "OFFSET_NOT_AVAILABLE",
    88: "UNSTABLE_OFFSET_COMMIT",
    89: "THROTTLING_QUOTA_EXCEEDED",
}
LASTING = {
    2: "CORRUPT_MESSAGE",
    10: "MESSAGE_TOO_LARGE",
    29: "TOPIC_AUTHORIZATION_FAILED",
    36: "TOPIC_ALREADY_EXISTS",
    40: "INVALID_CONFIG",
}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(momentary, "PATIENCE", SOON)
    monkeypatch.setattr(momentary, "SETTLING", SOON / 2)
    monkeypatch.setattr(momentary, "EVERY", timedelta(milliseconds=1))


def answering(*answers: Exception | str) -> Callable[[], str]:
    """Give one answer after the other, and then the last for ever."""
    coming: Iterator[Exception | str] = iter(answers)
    last: list[Exception | str] = []

    def ask() -> str:
        last[:] = [next(coming, *last)]
        if isinstance(last[0], Exception):
            raise last[0]
        return last[0]

    return ask


def both(code: int) -> Sequence[Exception]:
    """How librdkafka and how kafka-python tell it."""
    return KafkaException(KafkaError(code)), for_code(code)("told")


@pytest.mark.parametrize("code", MOMENTARY, ids=MOMENTARY.values())
def test_what_passes_by_itself_is_asked_for_again(code: int) -> None:
    assert passes(code)
    for error in both(code):
        assert ask_again("topics", answering(error, error, "there")) == "there"


@pytest.mark.parametrize("code", LASTING, ids=LASTING.values())
def test_what_does_not_pass_is_told_at_once(code: int) -> None:
    assert not passes(code)
    for error in both(code):
        with pytest.raises(ServerError, match=r"^topics on b: "):
            ask_again("topics on b", answering(error, "never reached"))


@pytest.mark.parametrize(
    "error",
    [
        KafkaException(KafkaError(KafkaError._TRANSPORT)),
        KafkaConnectionError("it closed"),
        Disconnected("b:1: it closed"),
        ConnectionResetError("reset"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_connection_that_broke_is_made_again(error: Exception) -> None:
    assert ask_again("topics", answering(error, "there")) == "there"


def test_when_patience_is_over_the_last_answer_is_told() -> None:
    first, last = both(14)[0], both(16)[0]
    with pytest.raises(ServerError, match=r"^group g: .*NOT_COORDINATOR"):
        ask_again("group g", answering(first, last))


def test_a_new_topic_may_be_unknown_for_a_moment_and_no_longer() -> None:
    for error in both(3):
        assert ask_again("t", answering(error, "there")) == "there"
        with pytest.raises(ServerError, match="t: "):
            ask_again("t", answering(error))


def test_a_refusal_is_an_error_of_its_own() -> None:
    with pytest.raises(Refused):
        ask_again("t", answering(Refused("no login")))


def test_one_that_is_refused_stops_no_other() -> None:
    tries: list[Sequence[str]] = []

    def ask(left: Sequence[str]) -> dict[str, int | Exception]:
        tries.append(list(left))
        told: dict[str, int | Exception] = {"sound": 1, "for good": both(29)[0]}
        told["later"] = 2 if len(tries) > 2 else both(6)[0]
        told["never"] = both(5)[0]
        return {name: told[name] for name in left}

    found, failed = ask_each("all", ["sound", "later", "never", "for good"], ask)
    assert found == {"sound": 1, "later": 2}
    assert [momentary.code_of(failed[name]) for name in sorted(failed)] == [29, 5]
    assert "sound" not in tries[1]
    assert "for good" not in tries[1]


def test_an_offset_that_is_none_is_not_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Librdkafka tells -1001 and no error of a leader that it cannot reach."""
    place = Place("orders", "id", 0)
    told: Future[Any] = Future()
    told.set_result(SimpleNamespace(offset=-1001))
    monkeypatch.setattr(topics, "_offsets", lambda *_: {place: told})
    found = topics._extents(cast("Any", None), [place])[place]
    assert isinstance(found, KafkaException)
    assert momentary.momentary(found)
