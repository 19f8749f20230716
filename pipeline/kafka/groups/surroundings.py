"""What stands around an offset: the record a consumer would read next, and the one before it."""

import hashlib
import struct
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from uuid import uuid4

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    ThrottleEvent,
    TopicPartition,
)
from pydantic import BaseModel, ConfigDict

from pipeline.config import KafkaConfig
from pipeline.errors import ServerError
from pipeline.kafka.cluster.momentary import passes
from pipeline.kafka.cluster.topics import GONE, described, known_extents, listed
from pipeline.kafka.log.place import Spot

BACK = 32
"""Offsets that are searched for the record before; markers and gaps may fill more."""
PATIENCE = 30.0  # seconds without anything from the brokers
UNDECIDED = "it stands behind an open transaction, nobody can tell what it reads next"
_EOF = KafkaError._PARTITION_EOF  # noqa: SLF001 - its public name
_LENGTH = struct.Struct(">i")


class Seen(BaseModel):
    """One record; the digest covers key, value and headers in their order, nulls told apart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    offset: int
    timestamp: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.sha256[:16]} at {self.offset}, time {self.timestamp}"

    def same(self, other: "Seen | None") -> bool:
        """Whether it is the same record, at whatever offset."""
        return other is not None and (self.timestamp, self.sha256) == (
            other.timestamp,
            other.sha256,
        )


class Surroundings(BaseModel):
    """What a read_committed consumer finds at an offset of a log from `start` to `end`.

    `before` is None where none of the BACK offsets before holds a record. `unseen` says why nobody
    looked: then neither is known, and with another reason than UNDECIDED start and end are not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic_id: str
    compacted: bool
    start: int
    end: int
    before: Seen | None = None
    next: Seen | None = None
    unseen: str | None = None


Looked = dict[Spot, Surroundings]


def look(config: KafkaConfig, spots: Iterable[Spot], *, partly: bool = False) -> Looked:
    """Look at each spot; one of a topic or partition that is not there is left out.

    Reads a few records for each, whatever the size of the topics. Raises ServerError where one
    cannot be looked at; with `partly` that is `unseen` instead, and all others are looked at.
    """
    heard = _Heard()
    reader = _reader(config, heard)
    try:
        there = set(listed(config).topics)
        wanted = sorted({spot for spot in spots if spot.topic in there})
        found = _extents(config, wanted)
        readable = [s for s in wanted if s in found and _is_readable(s, found[s])]
        for round_ in _rounds(readable):
            found |= _read(reader, {spot: found[spot] for spot in round_}, heard)
    except KafkaException as error:
        raise ServerError(f"records on {config.bootstrap_servers}: {error}") from error
    finally:
        reader.close()
    for spot, at in found.items():
        if at.unseen not in {None, UNDECIDED} and not partly:
            raise ServerError(f"{spot} on {config.bootstrap_servers}: {at.unseen}")
    return found


def _is_readable(spot: Spot, at: Surroundings) -> bool:
    return at.unseen is None and at.start <= spot.offset <= at.end


class _Heard:
    """When brokers were heard last; that a quota holds them back counts as hearing from them."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def now(self) -> None:
        self._last = max(self._last, time.monotonic())

    def held_back(self, event: ThrottleEvent) -> None:
        self._last = max(self._last, time.monotonic() + event.throttle_time)

    @property
    def silent(self) -> bool:
        return time.monotonic() - self._last > PATIENCE


def _reader(config: KafkaConfig, heard: _Heard) -> Consumer:
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
            "throttle_cb": heard.held_back,
        }
    )


def _extents(config: KafkaConfig, spots: list[Spot]) -> Looked:
    """Start and end of the logs; of a partition that nobody answers for, why."""
    names = sorted({spot.topic for spot in spots})
    topics, missing = described(config, names)
    places = {(p.topic, p.partition): p for topic in topics for p in topic.places}
    compacted = {topic.name: topic.compacted for topic in topics}
    asked = [places[at] for at in sorted({spot[:2] for spot in spots} & places.keys())]
    known, unknown = known_extents(config, asked)
    found: Looked = {}
    for spot in spots:
        place = places.get(spot[:2])
        if place in known:
            extent, folded = known[place], compacted[spot.topic]
            open_ = extent.end < spot.offset <= extent.high_watermark
            found[spot] = Surroundings(
                topic_id=str(place.topic_id),
                compacted=folded,
                start=extent.start,
                end=extent.high_watermark,
                unseen=UNDECIDED if open_ else None,
            )
        elif (why := unknown[place] if place else missing.get(spot.topic, GONE)) != GONE:
            topic_id = str(place.topic_id) if place else ""
            found[spot] = Surroundings(
                topic_id=topic_id, compacted=False, start=0, end=0, unseen=why
            )
    return found


def _rounds(spots: list[Spot]) -> Iterator[list[Spot]]:
    """Each round has one spot of a partition: it is assigned once at a time."""
    by_place: defaultdict[tuple[str, int], list[Spot]] = defaultdict(list)
    for spot in spots:
        by_place[spot.topic, spot.partition].append(spot)
    for one_each in zip_longest(*by_place.values()):
        yield [spot for spot in one_each if spot is not None]


def _read(reader: Consumer, spots: Looked, heard: _Heard) -> Looked:
    left = {(spot.topic, spot.partition): spot for spot in spots}
    found = dict(spots)
    reader.assign(
        [
            TopicPartition(spot.topic, spot.partition, max(at.start, spot.offset - BACK))
            for spot, at in spots.items()
        ]
    )
    heard.now()
    while left:
        for message in reader.consume(500, timeout=0.2):
            heard.now()
            spot = left.get((message.topic() or "", message.partition() or 0))
            if spot is not None and _done(message, spot, found):
                del left[spot.topic, spot.partition]
                reader.incremental_unassign([TopicPartition(spot.topic, spot.partition)])
        if left and heard.silent:
            for spot in left.values():
                found[spot] = found[spot].model_copy(update={"unseen": "nothing arrives"})
            break
    reader.unassign()
    return found


def _done(message: Message, spot: Spot, found: Looked) -> bool:
    """Take in a message; whether nothing more has to be read for this spot."""
    if (error := message.error()) is not None:
        if error.code() == _EOF:
            return True
        if passes(error.code()):
            return False  # librdkafka asks again
        found[spot] = found[spot].model_copy(update={"unseen": str(error)})
        return True
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
