"""Clients that produce, against a real broker: the ledger holds what a consumer can see."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from fixtures.ledger import Classification, Found, Ledger, Outcome, classify
from fixtures.ledger.record import read
from fixtures.stacks import training
from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component, Stack
from fixtures.topic_reading import topic_survivors
from fixtures.workload.producer import WILLING, clients
from fixtures.workload.topics import OWN_TOPICS, SYSTEM, create_topics
from fixtures.workload.workload import Clients
from pipeline.wait import wait_until
from tests.kafka import topics

pytestmark = pytest.mark.stack
SOURCES = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def broker() -> Iterator[Stack]:
    with NativeStack.launch(
        artifacts=training.prepared(), components=(Component.KAFKA,)
    ) as started:
        create_topics(started.config.kafka)
        yield started


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


@pytest.fixture
def emptied(broker: Stack) -> Stack:
    """The topics without a record; what stood below is gone from every offset."""
    admin = topics.admin(broker.config.kafka)
    names = list(OWN_TOPICS)
    for done in admin.delete_topics(names).values():
        done.result()
    wait_until(
        "topics are gone",
        lambda: "there" if set(names) & set(admin.list_topics(timeout=10).topics) else None,
        within=topics.WITHIN,
    )
    create_topics(broker.config.kafka)
    return broker


def written(broker: Stack, ledger: Ledger, seed: int, records: int = 600) -> None:
    tally, made = clients(broker.config.kafka, list(OWN_TOPICS.values()), ledger, seed=seed, rate=0)
    running = Clients(ledger, tally, made)
    with running:
        running.write(records)
        wait_until(
            "an aborted transaction with records in it",
            lambda: None if any(one.error == WILLING for one in ledger.read()) else "none yet",
            within=topics.WITHIN,
        )


def judged(broker: Stack, ledger: Ledger | Path) -> Classification:
    survivors = {"kafka": topic_survivors(broker.config.kafka)}
    return classify(ledger, survivors, system=SYSTEM)


def damage(found: Classification) -> dict[str, int]:
    keys = found.systems["kafka"].keys
    return {str(name): count for name, count in keys.items() if count and name is not Found.SOUND}


def test_what_was_acknowledged_is_read_back(emptied: Stack, ledger: Ledger, seed: int) -> None:
    written(emptied, ledger, seed)
    found = judged(emptied, ledger)
    assert damage(found) == {}
    assert found.acknowledged >= 600
    told = list(ledger.read())
    assert {change.table for one in told for change in one.changes} == set(OWN_TOPICS)
    assert [one for one in told if one.outcome is Outcome.INFO] == []
    assert any(one.error == WILLING for one in told)
    assert any(change.state is None for one in told for change in one.changes)
    assert all(one.ack for one in told if one.outcome is Outcome.OK)


@pytest.mark.slow
def test_it_survives_kill_9_of_clients_and_broker(
    emptied: Stack, tmp_path: Path, seed: int
) -> None:
    program = (
        "import sys; from pathlib import Path; from fixtures.ledger import Ledger;"
        "from fixtures.workload.producer import clients;"
        "from fixtures.workload.topics import OWN_TOPICS;"
        "from fixtures.workload.workload import Clients; from pipeline.config import KafkaConfig;"
        "ledger = Ledger(Path(sys.argv[1]));"
        "kafka = KafkaConfig(bootstrap_servers=sys.argv[2]);"
        "tally, made = clients(kafka, list(OWN_TOPICS.values()), ledger, seed=1, rate=0);"
        "Clients(ledger, tally, made).start();"
        "tally.wait_for(400, 60); print('written', flush=True); tally.wait_for(10**9, 600)"
    )
    kafka = emptied.config.kafka
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), kafka.bootstrap_servers],
        stdout=subprocess.PIPE,
        cwd=SOURCES,
        env=os.environ | {"PYTHONPATH": str(SOURCES)},
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"written\n"
        emptied.kill(Component.KAFKA)
        child.send_signal(signal.SIGKILL)
    emptied.start(Component.KAFKA)
    written(emptied, Ledger(tmp_path / "after"), seed, 30)  # its transactions end the old ones
    path = tmp_path / "ledger.jsonl"
    with path.open("ab") as both:
        both.write(b"".join(renumbered(tmp_path / "after" / "ledger.jsonl")))
    found = judged(emptied, path)
    assert damage(found) == {}
    assert found.acknowledged >= 430
    assert any(one.outcome is Outcome.INFO for one in read(path)), "nothing was under way"


def renumbered(path: Path) -> Iterator[bytes]:
    """The lines of another ledger, behind all numbers of the first."""
    for line in path.read_bytes().splitlines(keepends=True):
        yield line.replace(b'{"op":', b'{"op":9', 1)


Fault = Callable[[Stack, list[Message]], None]


def lost_record(broker: Stack, _: list[Message]) -> None:
    admin = topics.admin(broker.config.kafka)
    for done in admin.delete_records([TopicPartition("clicks", 0, 1)]).values():
        done.result()


def written_twice(broker: Stack, seen: list[Message]) -> None:
    resend(broker, seen[-1])


def in_another_partition(broker: Stack, seen: list[Message]) -> None:
    resend(broker, seen[-1], partition=1)


def at_another_time(broker: Stack, seen: list[Message]) -> None:
    resend(broker, seen[-1], topic="profiles", timestamp=1)


def nobody_wrote_it(broker: Stack, seen: list[Message]) -> None:
    resend(broker, seen[-1], key=b"nobody")


def resend(
    broker: Stack,
    message: Message,
    **changes: Any,  # noqa: ANN401 - as `produce` takes them
) -> None:
    writer = Producer({"bootstrap.servers": broker.config.kafka.bootstrap_servers})
    sent: dict[str, Any] = {
        "topic": message.topic(),
        "key": message.key(),
        "value": message.value(),
        "partition": message.partition(),
        "timestamp": message.timestamp()[1],
        "headers": message.headers(),
    }
    writer.produce(**(sent | changes))
    assert writer.flush(30) == 0


def seen_of(
    broker: Stack, topic: str, partition: int = 0, isolation: str = "read_committed"
) -> list[Message]:
    """Records of a partition, newest last."""
    reader = Consumer(
        {
            "bootstrap.servers": broker.config.kafka.bootstrap_servers,
            "group.id": "tests",
            "enable.partition.eof": True,
            "isolation.level": isolation,
        }
    )
    reader.assign([TopicPartition(topic, partition, 0)])
    seen: list[Message] = []
    while (message := reader.poll(30)) is not None and not message.error():
        seen.append(message)
    reader.close()
    return seen


@pytest.mark.parametrize(
    ("fault", "topic", "expected"),
    [
        (lost_record, "clicks", "lost"),
        (written_twice, "clicks", "corrupt"),
        (at_another_time, "profiles", "corrupt"),
        pytest.param(in_another_partition, "clicks", "phantom", marks=pytest.mark.slow),
        pytest.param(nobody_wrote_it, "transfers", "phantom", marks=pytest.mark.slow),
    ],
)
def test_damage_is_named(
    emptied: Stack, ledger: Ledger, *, fault: Fault, topic: str, expected: str
) -> None:
    written(emptied, ledger, 5, 200)
    fault(emptied, seen_of(emptied, topic))
    assert damage(judged(emptied, ledger)) == {expected: 1}


def test_aborted_records_that_show_are_phantoms(emptied: Stack, tmp_path: Path, seed: int) -> None:
    """What a restore does that forgets which transactions were aborted."""
    ledger = Ledger(tmp_path)
    written(emptied, ledger, seed)
    aborted = [one for one in ledger.read() if one.error == WILLING]
    shown = _show(emptied, {change.key for change in aborted[0].changes})
    assert shown
    assert damage(judged(emptied, ledger)) == {"phantom": shown}


def _show(broker: Stack, keys: set[str]) -> int:
    """Copy these records, as they stand in the log, outside of any transaction."""
    uncommitted = [
        message
        for partition in range(OWN_TOPICS["transfers"].partitions)
        for message in seen_of(broker, "transfers", partition, "read_uncommitted")
        if f"{partition}/{bytes(message.key() or b'').decode()}" in keys
    ]
    for message in uncommitted:
        resend(broker, message)
    return len(uncommitted)
