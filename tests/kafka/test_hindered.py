"""Brokers that hold back, close, elect or delete while topics and groups are backed up."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from select import select
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from fixtures.kafka_story import commit
from fixtures.stacks.protocol import Component, Stack
from pipeline.config import KafkaConfig
from pipeline.kafka.archive import archive, exports
from pipeline.kafka.cluster import momentary
from pipeline.kafka.cluster.brokers import Brokers
from pipeline.kafka.cluster.raw import RawReader
from pipeline.kafka.cluster.topics import cluster_id, describe, extents
from pipeline.kafka.cluster.wire import Wire
from pipeline.kafka.groups import groups
from pipeline.kafka.replay import target_topic
from pipeline.repository.sets import BackupSet, Repository
from pipeline.wait import wait_until
from tests.kafka import topics
from tests.kafka.archives import index_of, problems
from tests.kafka.brokers import listening
from tests.kafka.quotas import limited
from tests.kafka.replayed import Site, consumed

pytestmark = pytest.mark.stack
SLOW = 60_000.0
"""Bytes a second."""


@pytest.fixture
def topic(broker: Stack) -> str:
    name = topics.create(broker.config.kafka, "hindered")
    topics.fill(topics.producer(broker.config.kafka), name, 10_000)
    return name


def told(said: list[str], what: str) -> list[str]:
    return [line for line in said if what in line]


@pytest.fixture(scope="module")
def strict() -> Iterator[KafkaConfig]:
    """A broker whose quotas allow no burst, and that closes what is idle soon."""
    more = {"quota.window.num": "2", "connections.max.idle.ms": "2000"}
    with listening({}, more) as at:
        yield KafkaConfig(bootstrap_servers=at["PLAINTEXT"])


@pytest.fixture
def there(here: Site, strict: KafkaConfig) -> tuple[Site, str]:
    """That broker, with 180 kB in batches that the quotas of these tests let through."""
    here.connect(strict)
    name = topics.create(strict, "held-back")
    topics.fill(topics.producer(strict, **{"batch.size": 10_000}), name, 10_000)
    return here, name


def test_a_quota_of_the_brokers_is_waited_out_and_told(
    there: tuple[Site, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, topic = there
    monkeypatch.setattr(archive, "FETCH", 10_000)
    said: list[str] = []
    with limited(here.kafka, consumer_byte_rate=SLOW):
        backup = archive.take(here.config, here.repository, [topic], said.append)
    assert told(said, "a quota of the brokers holds us back"), said
    assert index_of(backup, topic).records == 10_000
    assert problems(backup) == []


@pytest.mark.slow
def test_a_replay_below_line_speed_gets_there(there: tuple[Site, str]) -> None:
    here, topic = there
    here.archive(topic)
    with limited(here.kafka, producer_byte_rate=SLOW, consumer_byte_rate=SLOW):
        said = here.bring(topic).said
    assert told(said, "a quota of the brokers holds us back"), said
    assert consumed(here.kafka, f"{topic}-back") == consumed(here.kafka, topic)


def test_a_connection_that_was_idle_for_too_long_is_made_again(
    there: tuple[Site, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brokers close what is idle for connections.max.idle.ms; an archive takes hours."""
    here, topic = there
    true, closed = exports.everything, list[Wire]()

    def idle_before(reader: RawReader) -> dict[str, Any]:
        idle = [wire for wires in reader._brokers._idle.values() for wire in wires]

        def still_open() -> str | None:
            closed[:] = [w for w in idle if select([w._socket], [], [], 0)[0]]
            return None if len(closed) == len(idle) else f"{len(idle) - len(closed)} are open"

        wait_until("the broker closes what is idle", still_open, within=topics.WITHIN)
        return true(reader)

    with monkeypatch.context() as patch:
        patch.setattr(exports, "everything", idle_before)
        backup = archive.take(here.config, here.repository, [topic])
    assert closed
    with RawReader(here.kafka) as reader:
        assert backup.manifest.facts["exports"] == exports.everything(reader)


def refusing(
    monkeypatch: pytest.MonkeyPatch, kind: str, spoil: Callable[[object], None], times: int = 3
) -> list[int]:
    """Let the first answers of a kind carry an error, as a broker that has just started does."""
    true, left = Wire.receive, [times]

    def receive(wire: Wire) -> object:
        answer = true(wire)
        if type(answer).__name__ == kind and left[0]:
            left[0] -= 1
            spoil(answer)
        return answer

    monkeypatch.setattr(Wire, "receive", receive)
    return left


@pytest.mark.parametrize("code", [6, 56, 100])
def test_a_leader_that_is_being_elected_is_asked_again(
    broker: Stack, topic: str, repository: Repository, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def spoil(answer: object) -> None:
        (told,) = answer.responses  # type: ignore[attr-defined]  # generated
        told.partitions[0].error_code = code

    left = refusing(monkeypatch, "FetchResponse", spoil)
    backup = archive.take(broker.config, repository, [topic])
    assert left == [0]
    assert index_of(backup, topic).records == 10_000


def test_what_clients_may_is_asked_for_again(
    broker: Stack, topic: str, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(answer: object) -> None:
        answer.error_code = 41  # type: ignore[attr-defined]  # NOT_CONTROLLER

    left = refusing(monkeypatch, "DescribeClientQuotasResponse", spoil)
    backup = archive.take(broker.config, repository, [topic])
    assert left == [0]
    assert isinstance(backup.manifest.facts["exports"]["quotas"], list)


@pytest.mark.slow
def test_brokers_that_start_anew_are_waited_for(broker: Stack, topic: str) -> None:
    """Everything that only asks goes on as if nothing had been."""
    kafka = broker.config.kafka
    commit(kafka, f"of-{topic}", TopicPartition(topic, 0, 5))
    with RawReader(kafka) as reader, ThreadPoolExecutor() as pool:
        asked: list[Callable[[], object]] = [
            lambda: describe(kafka, [topic])[0].partitions,
            lambda: target_topic.existing(kafka, topic),
            lambda: extents(kafka, describe(kafka, [topic])[0].places),
            lambda: cluster_id(kafka),
            lambda: list(groups.committed(kafka, (f"of-{topic}",))),
            lambda: exports.everything(reader),
            lambda: reader.fetch(describe(kafka, [topic])[0].places[0], 0).high_watermark,
        ]
        before = [ask() for ask in asked]
        broker.kill(Component.KAFKA)
        coming = [pool.submit(ask) for ask in asked]
        broker.start(Component.KAFKA)
        assert [each.result() for each in coming] == before


def group_positions(backup: BackupSet, group: str) -> list[groups.Position]:
    return [p for found in groups.read(backup) if found.name == group for p in found.positions]


def test_groups_behind_an_open_transaction_are_backed_up(
    broker: Stack, repository: Repository
) -> None:
    """One reads uncommitted records, far behind the transaction; the other has nothing to do."""
    kafka, topic = broker.config.kafka, topics.create(broker.config.kafka, "open")
    other = topics.create(kafka, "beside")
    topics.fill(topics.producer(kafka), other, 10)
    writer = topics.producer(kafka, **{"transactional.id": f"of-{topic}"})
    writer.init_transactions(30)
    writer.begin_transaction()
    topics.fill(writer, topic, 200)
    commit(kafka, f"of-{topic}", TopicPartition(topic, 0, 150))
    commit(kafka, f"of-{other}", TopicPartition(other, 0, 5))
    said: list[str] = []
    backup = groups.take(broker.config, repository, said.append)
    (behind,) = group_positions(backup, f"of-{topic}")
    (beside,) = group_positions(backup, f"of-{other}")
    writer.abort_transaction(30)
    assert behind.around is not None
    assert behind.around.unseen is not None
    assert "behind an open transaction" in behind.around.unseen
    assert beside.around is not None
    assert beside.around.next is not None
    assert told(said, "behind an open transaction")
    assert groups.left_out(backup) == []


def test_batches_behind_an_open_transaction_can_be_read(broker: Stack) -> None:
    kafka, topic = broker.config.kafka, topics.create(broker.config.kafka, "open")
    writer = topics.producer(kafka, **{"transactional.id": f"of-{topic}"})
    writer.init_transactions(30)
    writer.begin_transaction()
    topics.fill(writer, topic, 20)
    (described,) = describe(kafka, [topic])
    with RawReader(kafka) as reader:
        found = list(reader.batches(described.places[0], 0, 20, undecided=True))
    writer.abort_transaction(30)
    assert sum(len(each.data) for each in found)


def test_a_topic_that_is_deleted_meanwhile_is_named_and_the_others_are_archived(
    broker: Stack, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = broker.config.kafka
    going, early, staying = (topics.create(kafka, name) for name in ("going", "early", "staying"))
    writer = topics.producer(kafka)
    for each in (going, early, staying):
        topics.fill(writer, each, 100)
    monkeypatch.setattr(momentary, "SETTLING", timedelta(seconds=1))
    client, true = topics.admin(kafka), Brokers.leader
    gone: list[object] = []

    def leader(brokers: Brokers, place: object) -> int:
        if not gone and getattr(place, "topic", "") == going:
            gone.append(client.delete_topics([going])[going].result())
        return true(brokers, place)  # type: ignore[arg-type]  # a place

    monkeypatch.setattr(Brokers, "leader", leader)
    client.delete_topics([early])[early].result()
    said: list[str] = []
    wished = [going, early, staying]
    backup = archive.take(broker.config, repository, wished, said.append, partly=True)
    facts = backup.manifest.facts
    assert sorted(facts["incomplete"]) == sorted([going, early])
    assert list(facts["topics"]) == [staying]
    assert len(archive.left_out(backup)) == 2
    assert "not whole" in facts["scope"]
    assert problems(backup) == []


def test_topics_that_come_and_go_are_left_out_by_name(
    broker: Stack, repository: Repository
) -> None:
    kafka = broker.config.kafka
    scratch, kept = topics.create(kafka, "scratch"), topics.create(kafka, "kept")
    said: list[str] = []
    wished = [scratch, kept]
    backup = archive.take(
        broker.config, repository, wished, said.append, exclude=["scratch-*", "none"]
    )
    facts = backup.manifest.facts
    assert (facts["excluded"], list(facts["topics"])) == ([scratch], [kept])
    assert facts["incomplete"] == {}
    assert told(said, f"left out by --exclude scratch-* none: {scratch}")
