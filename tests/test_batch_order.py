"""What a producer's sequences tell of batches that are missing, repeated or moved."""

from checks.kafka_order import Order
from pipeline.kafka.log.batches import Batch


def batch(
    base: int, sequence: int, count: int = 5, *, epoch: int = 0, leader: int = 0, producer: int = 7
) -> Batch:
    return Batch(base, 0, leader, 2, 0, 0, count - 1, 0, 0, producer, epoch, sequence, count)


def told(*batches: Batch, compacted: bool = False) -> list[str]:
    order = Order(0)
    return [text for each in batches for text in order.problems(each, compacted=compacted)]


def test_what_brokers_take_is_in_order() -> None:
    """Sequences begin anew with an epoch, and go round; a log may begin in the middle of one."""
    last = 2**31 - 3
    assert told(batch(0, last), batch(5, 2), batch(10, 0, epoch=1), batch(15, 5, epoch=1)) == []
    assert told(batch(0, 0), batch(5, -1, producer=-1), batch(10, 5, leader=3)) == []
    assert told(batch(0, 0, leader=2), batch(5, 5, leader=-1), batch(10, 10, leader=2)) == []


def test_behind_a_hole_and_in_a_compacted_topic_sequences_tell_nothing() -> None:
    assert told(batch(0, 0), batch(10, 10)) == []
    assert told(batch(0, 0), batch(5, 90), compacted=True) == []


def test_what_no_broker_would_take_is_told() -> None:
    assert told(batch(0, 0), batch(5, 10)) == ["producer 7 goes on at sequence 10, expected 5"]
    assert told(batch(0, 0), batch(5, 0)) == ["producer 7 goes on at sequence 0, expected 5"]
    assert told(batch(0, 0), batch(5, 5, epoch=1)) == [
        "producer 7 goes on at sequence 5, expected 0"
    ]
    assert told(batch(0, 0, epoch=3), batch(5, 0, epoch=2)) == [
        "epoch 2 of producer 7 follows its epoch 3"
    ]
    assert told(batch(0, 0, leader=4), batch(5, 5, leader=3), compacted=True) == [
        "leader epoch 3 follows 4: of two histories"
    ]
