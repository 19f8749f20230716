"""The proof of a replay is not blind: whatever is written otherwise than archived is named."""

from collections.abc import Callable

import pytest

from pipeline.errors import RestoreError
from pipeline.kafka.cluster.raw_produce import Producer
from pipeline.kafka.log.batches import Batch
from pipeline.kafka.log.records import Record, encoded
from pipeline.kafka.replay import replay_journal, replay_units, replay_write
from tests.kafka import topics
from tests.kafka.replayed import Site, eventful

pytestmark = pytest.mark.stack
FOREVER = {"retention.ms": "-1"}
Fault = Callable[[Batch, bytes], tuple[Batch, bytes]]


def a_bit_of_a_value(header: Batch, payload: bytes) -> tuple[Batch, bytes]:
    changed = bytearray(payload)
    changed[-3] ^= 1
    return header, bytes(changed)


def a_millisecond(header: Batch, payload: bytes) -> tuple[Batch, bytes]:
    return header._replace(base_timestamp=header.base_timestamp + 1), payload


@pytest.mark.parametrize(
    ("fault", "told"),
    [(a_bit_of_a_value, "keys, values or headers differ"), (a_millisecond, "base time")],
)
def test_what_was_sent_otherwise_is_found(
    here: Site, monkeypatch: pytest.MonkeyPatch, fault: Fault, told: str
) -> None:
    topic = topics.create(here.kafka, "blind", config=FOREVER)
    eventful(here.kafka, topic, 300)
    here.archive(topic)
    true, sent = replay_write._ours, list[int]()

    def faulty(header: Batch, payload: bytes, producer: Producer, sequence: int) -> bytes:
        sent.append(header.records)
        changed = fault(header, bytes(payload)) if len(sent) == 3 else (header, payload)
        return true(*changed, producer, sequence)

    monkeypatch.setattr(replay_write, "_ours", faulty)
    with pytest.raises(RestoreError, match=told):
        here.bring(topic)
    assert len(sent) > 3
    assert [name for _, name in replay_journal.unfinished(here.config)] == [f"{topic}-back"]


def swapped(records: list[Record]) -> list[Record]:
    first, second, *rest = records
    bodies = (first._replace(body=second.body), second._replace(body=first.body))
    return [*bodies, *rest]


def later(records: list[Record]) -> list[Record]:
    first, *rest = records
    return [first._replace(timestamp=first.timestamp + 1), *rest]


@pytest.mark.parametrize("fault", [swapped, later])
def test_what_was_written_anew_is_compared_record_by_record(
    here: Site, monkeypatch: pytest.MonkeyPatch, fault: Callable[[list[Record]], list[Record]]
) -> None:
    config = FOREVER | {"message.timestamp.type": "LogAppendTime"}
    topic = topics.create(here.kafka, "anew", config=config)
    topics.fill(topics.producer(here.kafka, **{"compression.type": "lz4"}), topic, 50)
    here.archive(topic)
    monkeypatch.setattr(replay_units, "encoded", lambda part, codec: encoded(fault(part), codec))
    with pytest.raises(RestoreError, match=r"the record at 0 differs from that archived at 0"):
        here.bring(topic)


def test_a_topic_that_is_deleted_while_it_is_written_is_one_error(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = topics.create(here.kafka, "vanishing", config=FOREVER)
    eventful(here.kafka, topic, 500)
    here.archive(topic)
    true, sent = replay_write.PartitionWriter._send, list[int]()
    monkeypatch.setattr(replay_write, "WINDOW", 1)

    def deleting(
        self: replay_write.PartitionWriter, header: Batch, payload: bytes, target: int
    ) -> None:
        true(self, header, payload, target)
        sent.append(1)
        if len(sent) == 4:
            client = topics.admin(here.kafka)
            client.delete_topics([f"{topic}-back"])[f"{topic}-back"].result()

    monkeypatch.setattr(replay_write.PartitionWriter, "_send", deleting)
    with pytest.raises(RestoreError, match="the topic was deleted meanwhile"):
        here.bring(topic)
