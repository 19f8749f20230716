"""CDC topics folded to the keys that are alive in them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from pipeline.cdc.wire import Undecodable
from pipeline.config import KafkaConfig
from pipeline.errors import ServerError
from pipeline.kafka.cluster.momentary import ask_again, passes

SECONDS = 30.0
POLL = 0.05
END_WITHIN_MS = 20
"""A broker holds a fetch at the end of a topic for 500 ms by default, once for each table."""
BATCH = 10_000
Ends = dict[int, int]


@dataclass(frozen=True)
class Stranger:
    """A record of a topic that is none of its events."""

    topic: str
    partition: int
    offset: int
    why: str

    @property
    def place(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"

    def __str__(self) -> str:
        return f"{self.place}: {self.why}"


@dataclass(frozen=True)
class LiveKeys:
    """For each partition: raw key of every record that no tombstone followed, and its offset.

    Held in memory: 110 bytes for each key of 10 bytes, measured.
    """

    topic: str
    partitions: dict[int, dict[bytes, int]]
    records: int
    keyless: int = 0
    """Records that name no row, so that no consumer can place them; see `live_keys`."""
    strangers: tuple["Stranger", ...] = ()

    def __iter__(self) -> Iterator[tuple[int, bytes, int]]:
        for partition, keys in self.partitions.items():
            for key, offset in keys.items():
                yield partition, key, offset


def end_offsets(config: KafkaConfig, topic: str) -> Ends:
    """Where each partition ends; empty for a topic that does not exist (yet)."""
    consumer = _consumer(config)
    try:
        return _ends(consumer, topic)
    except KafkaException as error:
        raise ServerError(f"topic {topic} on {config.bootstrap_servers}: {error}") from error
    finally:
        consumer.close()


def records(config: KafkaConfig, topic: str) -> Iterator[Any]:
    """Every committed record from the topic's beginning up to its present end."""
    consumer = _consumer(config)
    try:
        yield from _records(consumer, topic, _ends(consumer, topic))
    except KafkaException as error:
        raise ServerError(f"topic {topic} on {config.bootstrap_servers}: {error}") from error
    finally:
        consumer.close()


def live_keys(
    config: KafkaConfig, topic: str, is_event: Callable[[bytes], bool] = lambda _: True
) -> LiveKeys:
    """Read the topic from its beginning up to its present end.

    Records without a key are counted. Debezium asks the database for a table's primary key when it
    decodes the first change, and where the table was dropped by then, its changes have none.
    `is_event` tells envelopes from rows without one, or raises Undecodable: such a record stands
    for no row, and neither does one without an envelope in a topic whose others have it.
    """
    consumer = _consumer(config)
    try:
        ends = _ends(consumer, topic)
        fold = _Fold(topic, ends, is_event)
        for record in _records(consumer, topic, ends):
            fold.add(record)
    except KafkaException as error:
        raise ServerError(f"topic {topic} on {config.bootstrap_servers}: {error}") from error
    finally:
        consumer.close()
    return fold.live()


def sampled(config: KafkaConfig, topic: str, count: int) -> Iterator[Any]:
    """Committed records of the first and the last `count` offsets of every partition."""
    consumer = _consumer(config)
    try:
        ends = _ends(consumer, topic)
        starts = {
            one: consumer.get_watermark_offsets(TopicPartition(topic, one), SECONDS)[0]
            for one in ends
        }
        middles = {one: min(starts[one] + count, end) for one, end in ends.items()}
        lasts = {one: max(middles[one], end - count) for one, end in ends.items()}
        yield from _between(consumer, topic, starts, middles)
        yield from _between(consumer, topic, lasts, ends)
    except KafkaException as error:
        raise ServerError(f"topic {topic} on {config.bootstrap_servers}: {error}") from error
    finally:
        consumer.close()


class _Fold:
    """The newest event of each key; a record that is no event neither gives nor takes one."""

    def __init__(self, topic: str, ends: Ends, is_event: Callable[[bytes], bool]) -> None:
        self._topic, self._is_event = topic, is_event
        self._enveloped: dict[int, dict[bytes, int]] = {partition: {} for partition in ends}
        self._flat: dict[int, dict[bytes, int]] = {partition: {} for partition in ends}
        self._records = self._keyless = self._envelopes = 0
        self._strangers: list[Stranger] = []

    def add(self, record: Any) -> None:  # noqa: ANN401 - a message without an error
        self._records += 1
        key, value, partition = record.key(), record.value(), record.partition()
        if key is None:
            self._keyless += 1
        elif value is None:
            self._enveloped[partition].pop(key, None)
            self._flat[partition].pop(key, None)
        else:
            try:
                enveloped = self._is_event(value)
            except Undecodable as error:
                self._strange(partition, record.offset(), f"its value is no event: {error}")
            else:
                self._envelopes += enveloped
                kind = self._enveloped if enveloped else self._flat
                kind[partition][key] = record.offset()

    def live(self) -> LiveKeys:
        partitions = self._enveloped if self._envelopes else self._flat
        if self._envelopes:
            for partition, keys in self._flat.items():
                for offset in sorted(keys.values()):
                    self._strange(partition, offset, "its value has no envelope, as the others do")
        strangers = tuple(self._strangers)
        return LiveKeys(self._topic, partitions, self._records, self._keyless, strangers)

    def _strange(self, partition: int, offset: int, why: str) -> None:
        self._strangers.append(Stranger(self._topic, partition, offset, why))


def write_tombstones(
    config: KafkaConfig, topic: str, keys: Iterable[tuple[int, bytes]], header: tuple[str, bytes]
) -> int:
    """Bury raw keys in the partitions where they lie; returns how many the brokers confirmed."""
    producer = Producer(config.librdkafka({"enable.idempotence": True}))
    failures: list[KafkaError] = []
    confirmed = 0

    def delivered(error: KafkaError | None, _: Message) -> None:
        nonlocal confirmed
        if error is None:
            confirmed += 1
        else:
            failures.append(error)

    for count, (partition, key) in enumerate(keys, 1):
        producer.produce(
            topic,
            key=key,
            value=None,
            partition=partition,
            headers=[header],
            on_delivery=delivered,
        )
        if count % BATCH == 0:  # librdkafka's queue holds 100,000
            producer.flush(SECONDS)
    unsent = producer.flush(SECONDS)
    if failures or unsent:
        raise ServerError(f"tombstones for {topic}: {unsent} unsent, failures {failures[:3]}")
    return confirmed


def _consumer(config: KafkaConfig) -> Consumer:
    own = {
        "group.id": "pipeline-reconcile",  # librdkafka wants one; nothing is committed to it
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",
        "fetch.wait.max.ms": END_WITHIN_MS,
    }
    return Consumer(config.librdkafka(own))


def _ends(consumer: Consumer, topic: str) -> Ends:
    return ask_again(f"ends of {topic}", partial(_ends_now, consumer, topic))


def _ends_now(consumer: Consumer, topic: str) -> Ends:
    found = consumer.list_topics(topic, timeout=SECONDS).topics[topic]
    if found.error is not None:
        if found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return {}
        raise KafkaException(found.error)
    return {
        partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), SECONDS)[1]
        for partition in found.partitions
    }


def _between(consumer: Consumer, topic: str, starts: Ends, ends: Ends) -> Iterator[Any]:
    """Committed records of these offsets alone; what lies between them may be compacted away."""
    left = {one: end for one, end in ends.items() if starts[one] < end}
    consumer.assign([TopicPartition(topic, one, starts[one]) for one in left])
    silence = 0.0
    while left:
        batch = consumer.consume(BATCH, POLL)
        silence = 0.0 if batch else silence + POLL
        if silence >= SECONDS:
            raise ServerError(f"{topic}: no record for {SECONDS:g} s, {set(left)} unfinished")
        for message in batch:
            if (error := message.error()) is not None:
                if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                    raise KafkaException(error)
                left.pop(message.partition() or 0, None)
            elif (end := left.get(message.partition() or 0)) is not None:
                offset = message.offset() or 0
                if offset < end:
                    yield message
                if offset >= end - 1:
                    del left[message.partition() or 0]
                    consumer.incremental_unassign([TopicPartition(topic, message.partition() or 0)])


def _records(consumer: Consumer, topic: str, ends: Ends) -> Iterator[Any]:
    """Every committed record until each partition reported its end."""
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in ends])
    unfinished, silence = set(ends), 0.0
    while unfinished:
        batch = consumer.consume(BATCH, POLL)  # returns early only when the batch is full
        silence = 0.0 if batch else silence + POLL
        if silence >= SECONDS:
            raise ServerError(f"{topic}: no record for {SECONDS:g} s, {unfinished} unfinished")
        for message in batch:
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                partition = _finished(message, ends)
                unfinished.discard(partition)
            elif not passes(error.code()):  # librdkafka goes on by itself
                raise KafkaException(error)


def _finished(eof: Any, ends: Ends) -> int:  # noqa: ANN401 - typed as if it might have no offset
    """Return the partition; refuse an end before the topic's, which an open transaction makes."""
    partition: int = eof.partition()
    if eof.offset() < ends[partition]:
        raise ServerError(
            f"{eof.topic()}[{partition}] can be read up to {eof.offset()} of {ends[partition]}: "
            "a transaction is still open there"
        )
    return partition
