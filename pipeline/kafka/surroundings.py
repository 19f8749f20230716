"""What stands around an offset: the record a consumer would read next, and the one before it."""

import hashlib
import struct
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import NamedTuple
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from pydantic import BaseModel, ConfigDict

from pipeline.config import KafkaConfig
from pipeline.errors import ServerError
from pipeline.kafka.topics import describe, extents

BACK = 32
"""Offsets that are searched for the record before; markers and gaps may fill more."""
PATIENCE = 30.0  # seconds without anything from the brokers
_EOF = KafkaError._PARTITION_EOF  # noqa: SLF001 - its public name
_LENGTH = struct.Struct(">i")


class Spot(NamedTuple):
    """An offset in a partition, where a consumer would go on."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


class Seen(BaseModel):
    """One record; the digest covers key, value and headers in their order, nulls told apart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    offset: int
    timestamp: int
    sha256: str

    def same(self, other: "Seen | None") -> bool:
        """Whether it is the same record, at whatever offset."""
        return other is not None and (self.timestamp, self.sha256) == (
            other.timestamp,
            other.sha256,
        )


class Surroundings(BaseModel):
    """What a read_committed consumer finds at an offset of a log from `start` to `end`.

    `before` is None where none of the BACK offsets before holds a record.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic_id: str
    compacted: bool
    start: int
    end: int
    before: Seen | None = None
    next: Seen | None = None


def look(config: KafkaConfig, spots: Iterable[Spot]) -> dict[Spot, Surroundings]:
    """Look at each spot; one of a topic or partition that is not there is left out.

    Reads a few records for each, whatever the size of the topics. Raises ServerError.
    """
    reader = _reader(config)
    try:
        there = set(reader.list_topics(timeout=PATIENCE).topics)
        wanted = sorted({spot for spot in spots if spot.topic in there})
        found = _extents(config, wanted)
        readable = [s for s in wanted if s in found and found[s].start <= s.offset <= found[s].end]
        for round_ in _rounds(readable):
            found |= _read(reader, {spot: found[spot] for spot in round_})
    except KafkaException as error:
        raise ServerError(f"records on {config.bootstrap_servers}: {error}") from error
    finally:
        reader.close()
    return found


def _reader(config: KafkaConfig) -> Consumer:
    return Consumer(
        {
            **config.client,
            "bootstrap.servers": config.bootstrap_servers,
            "group.id": f"pipeline-look-{uuid4()}",  # librdkafka wants one; it is never joined
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "max.partition.fetch.bytes": 65536,  # a larger batch still comes whole
            "queued.max.messages.kbytes": 1024,
            "log_level": 2,
        }
    )


def _extents(config: KafkaConfig, spots: list[Spot]) -> dict[Spot, Surroundings]:
    described = describe(config, names) if (names := sorted({s.topic for s in spots})) else []
    compacted = {topic.name: topic.compacted for topic in described}
    asked = {(p.topic, p.partition): p for topic in described for p in topic.places}
    told = extents(config, list(asked.values()))
    return {
        spot: Surroundings(
            topic_id=str(place.topic_id),
            compacted=compacted[spot.topic],
            start=told[place].start,
            end=told[place].high_watermark,
        )
        for spot in spots
        if (place := asked.get((spot.topic, spot.partition))) is not None
    }


def _rounds(spots: list[Spot]) -> Iterator[list[Spot]]:
    """Each round has one spot of a partition: it is assigned once at a time."""
    by_place: defaultdict[tuple[str, int], list[Spot]] = defaultdict(list)
    for spot in spots:
        by_place[spot.topic, spot.partition].append(spot)
    for one_each in zip_longest(*by_place.values()):
        yield [spot for spot in one_each if spot is not None]


def _read(reader: Consumer, spots: dict[Spot, Surroundings]) -> dict[Spot, Surroundings]:
    left = {(spot.topic, spot.partition): spot for spot in spots}
    found = dict(spots)
    reader.assign(
        [
            TopicPartition(spot.topic, spot.partition, max(at.start, spot.offset - BACK))
            for spot, at in spots.items()
        ]
    )
    heard = time.monotonic()
    while left:
        for message in reader.consume(500, timeout=0.2):
            heard = time.monotonic()
            spot = left.get((message.topic() or "", message.partition() or 0))
            if spot is not None and _done(message, spot, found):
                del left[spot.topic, spot.partition]
                reader.incremental_unassign([TopicPartition(spot.topic, spot.partition)])
        if left and time.monotonic() - heard > PATIENCE:
            raise ServerError(f"nothing arrives from {', '.join(map(str, left.values()))}")
    reader.unassign()
    return found


def _done(message: Message, spot: Spot, found: dict[Spot, Surroundings]) -> bool:
    """Take in a message; whether nothing more has to be read for this spot."""
    if (error := message.error()) is not None:
        if error.code() == _EOF:
            return True
        raise KafkaException(error)
    seen = _seen(message)
    which = "before" if seen.offset < spot.offset else "next"
    found[spot] = found[spot].model_copy(update={which: seen})
    return which == "next"


def _seen(message: Message) -> Seen:
    digest = hashlib.sha256()
    parts: list[str | bytes | None] = [message.key(), message.value()]
    for header in message.headers() or ():
        parts += header
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(_LENGTH.pack(-1 if data is None else len(data)))
        digest.update(data or b"")
    return Seen(
        offset=message.offset() or 0, timestamp=message.timestamp()[1], sha256=digest.hexdigest()
    )
