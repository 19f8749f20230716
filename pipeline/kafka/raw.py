"""Record batches as a broker holds them, fetched with kafka-python's protocol classes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

from kafka.errors import for_code
from kafka.protocol.consumer import FetchRequest, OffsetForLeaderEpochRequest

from pipeline.config import KafkaConfig
from pipeline.errors import ConfigError, ServerError
from pipeline.kafka.batches import walk
from pipeline.kafka.brokers import Brokers, Place
from pipeline.kafka.gaps import Aborted
from pipeline.kafka.wire import Disconnected
from pipeline.wait import wait_until

WITHIN, PAUSE = timedelta(seconds=30), timedelta(milliseconds=200)
PATIENCE = 20
"""Answers in a row that may bring no data, half a second each."""

_BY_TOPIC_ID = 13
_WAIT_MS, _READ_COMMITTED = 500, 1
_OUT_OF_RANGE, _LEADER_MOVED = 1, frozenset({5, 6, 74, 75})
_GONE = frozenset({3, 100, 103})
_SETTINGS = {
    "security.protocol": "security_protocol",
    "ssl.ca.location": "ssl_cafile",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.key.location": "ssl_keyfile",
    "ssl.key.password": "ssl_password",
    "ssl.crl.location": "ssl_crlfile",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
    "client.id": "client_id",
}
"""librdkafka's spelling, which pipeline.toml uses, and kafka-python's."""


class OffsetGone(ServerError):
    """The log does not hold the offset any more: retention was faster, or the log was cut."""


@dataclass(frozen=True)
class Fetched:
    """What a broker answered: `data` may end inside a batch."""

    data: bytes | memoryview
    high_watermark: int
    last_stable: int
    log_start: int
    aborted: tuple[Aborted, ...]


class RawReader:
    """Fetches from the leaders of partitions, in any number of threads."""

    def __init__(self, config: KafkaConfig, fetch_bytes: int = 8 << 20) -> None:
        self._fetch_bytes = fetch_bytes
        self._servers = config.bootstrap_servers
        self._settings = settings(config.client)
        self._brokers = Brokers(config.bootstrap_servers, self._settings)

    def close(self) -> None:
        self._brokers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, request: Any) -> Any:  # noqa: ANN401 - generated
        """What any broker answers to this request."""
        return self._brokers.ask(request)

    def batches(self, place: Place, start: int, end: int) -> Iterator[Fetched]:
        """Whole batches that begin before `end`; the next fetch runs while one is used.

        Raises OffsetGone where the log no longer holds what comes next, else ServerError.
        """
        if start >= end:
            return
        with ThreadPoolExecutor(1, "fetch") as ahead:
            position, silent = start, 0
            coming = ahead.submit(self._fetch_whole, place, position, end)
            while position < end:
                fetched, reached = coming.result()
                silent = 0 if fetched.data else silent + 1
                if silent > PATIENCE:
                    raise ServerError(
                        f"{place} on {self._servers}: nothing arrives from offset {position} on, "
                        f"expected up to {end}"
                    )
                position = reached
                if position < end:
                    coming = ahead.submit(self._fetch_whole, place, position, end)
                if fetched.data:
                    yield fetched

    def _fetch_whole(self, place: Place, position: int, end: int) -> tuple[Fetched, int]:
        fetched = self.fetch(place, position)
        kept, reached = _whole(fetched.data, position, end, f"{place}@{position}")
        if kept < len(fetched.data):
            fetched = replace(fetched, data=memoryview(fetched.data)[:kept])
        return fetched, reached

    def fetch(self, place: Place, offset: int) -> Fetched:
        """One answer of the leader, who is looked up again while it moves or reconnects."""
        where = f"{place}@{offset} on {self._servers}"
        told = self._led(
            place,
            where,
            lambda: self._request(place, offset),
            lambda answer: answer if answer.error_code else answer.responses[0].partitions[0],
        )
        return _read(told, where)

    def _led(
        self, place: Place, where: str, request: Callable[[], Any], part: Callable[[Any], Any]
    ) -> Any:  # noqa: ANN401 - generated
        """Ask whoever leads, and again while nobody does; other errors are the caller's."""
        told = None

        def unanswered() -> str | None:
            nonlocal told
            try:
                told = part(self._brokers.ask(request(), self._brokers.leader(place)))
            except Disconnected as error:
                return self._look_again(str(error))
            reason = str(for_code(told.error_code).__name__)
            if told.error_code in _LEADER_MOVED:
                return self._look_again(reason)
            if told.error_code in _GONE:
                self._brokers.refresh()
                return reason if self._brokers.exists(place.topic, place.topic_id) else None
            return None

        wait_until(f"{where}: an answer of its leader", unanswered, within=WITHIN, every=PAUSE)
        return told

    def _look_again(self, reason: str) -> str:
        """Ask who leads now; that nobody answers is a reason to wait as well."""
        try:
            self._brokers.refresh()
        except ServerError as error:
            return f"{reason}; {error}"
        return reason

    def _request(self, place: Place, offset: int) -> Any:  # noqa: ANN401 - generated
        wanted = FetchRequest.FetchTopic.FetchPartition(
            partition=place.partition,
            current_leader_epoch=-1,
            fetch_offset=offset,
            last_fetched_epoch=-1,
            log_start_offset=-1,
            partition_max_bytes=self._fetch_bytes,
        )
        return FetchRequest(
            replica_id=-1,
            max_wait_ms=_WAIT_MS,
            min_bytes=1,
            max_bytes=self._fetch_bytes,
            isolation_level=_READ_COMMITTED,
            session_id=0,
            session_epoch=-1,
            topics=[FetchRequest.FetchTopic(topic_id=place.topic_id, partitions=[wanted])],
            forgotten_topics_data=[],
            rack_id="",
            min_version=_BY_TOPIC_ID,
        )

    def diverged(self, place: Place, ends: Sequence[tuple[int, int]]) -> str | None:
        """Why the log is not the one that held these leader epochs up to these offsets, or None."""
        for (epoch, _), (later, _) in pairwise(ends):
            if later < epoch:
                return f"leader epoch {later} follows {epoch}: of two histories"
        for epoch, end in ends:
            known, reaches = self._epoch_end(place, epoch)
            if known != epoch or reaches < end:
                return (
                    f"the log was cut: leader epoch {epoch} was archived up to {end}, "
                    f"the broker knows epoch {known} up to {reaches}"
                )
        return None

    def _epoch_end(self, place: Place, epoch: int) -> tuple[int, int]:
        wanted = OffsetForLeaderEpochRequest.OffsetForLeaderTopic
        request = OffsetForLeaderEpochRequest(
            replica_id=-1,
            topics=[
                wanted(
                    topic=place.topic,
                    partitions=[
                        wanted.OffsetForLeaderPartition(
                            partition=place.partition, current_leader_epoch=-1, leader_epoch=epoch
                        )
                    ],
                )
            ],
        )
        where = f"{place} on {self._servers}: end of epoch {epoch}"
        told = self._led(
            place, where, lambda: request, lambda answer: answer.topics[0].partitions[0]
        )
        if told.error_code:
            raise ServerError(f"{where}: {for_code(told.error_code).__name__}")
        return int(told.leader_epoch), int(told.end_offset)


def settings(client: Mapping[str, str]) -> dict[str, Any]:
    """Security settings in kafka-python's spelling; one that it has no word for is refused."""
    found: dict[str, Any] = {}
    for name, value in client.items():
        if name in _SETTINGS:
            found[_SETTINGS[name]] = value
        elif name == "ssl.endpoint.identification.algorithm":
            found["ssl_check_hostname"] = value != "none"
        elif name.startswith(("ssl.", "sasl.", "enable.ssl.")):
            raise ConfigError(f"kafka.client: {name!r} cannot be used to archive topics")
    if "security_protocol" in found:
        found["security_protocol"] = found["security_protocol"].upper()
    return found


def _read(told: Any, where: str) -> Fetched:  # noqa: ANN401 - generated
    if told.error_code == 0:
        aborted = told.aborted_transactions or ()
        return Fetched(
            told.records or b"",
            told.high_watermark,
            told.last_stable_offset,
            told.log_start_offset,
            tuple(Aborted(each.producer_id, each.first_offset) for each in aborted),
        )
    reason = for_code(told.error_code).__name__
    if told.error_code == _OUT_OF_RANGE:
        raise OffsetGone(f"{where}: {reason}")
    if told.error_code in _GONE:
        raise ServerError(f"{where}: the topic was deleted while it was read ({reason})")
    raise ServerError(f"{where}: {reason}")


def _whole(data: bytes | memoryview, position: int, end: int, where: str) -> tuple[int, int]:
    """Bytes of the whole batches that begin before `end`, and the offset after them."""
    size = 0
    for batch, _ in walk(data, where, cut=True):
        if batch.base_offset >= end:
            return size, end
        size += batch.size
        position = batch.next_offset
    return size, position
