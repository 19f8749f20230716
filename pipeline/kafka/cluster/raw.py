"""Record batches as a broker holds them, fetched with kafka-python's protocol classes."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any, Self

from kafka.protocol.consumer import FetchRequest

from pipeline.config import KafkaConfig
from pipeline.errors import ConfigError, ServerError
from pipeline.kafka.cluster import momentary
from pipeline.kafka.cluster.brokers import Brokers
from pipeline.kafka.cluster.momentary import UNKNOWN
from pipeline.kafka.cluster.wire import Disconnected
from pipeline.kafka.log.batches import walk
from pipeline.kafka.log.gaps import Aborted
from pipeline.kafka.log.place import Place
from pipeline.wait import wait_until

SILENT = 20
"""Answers in a row that may bring no data, half a second each."""
HELD_BACK = timedelta(minutes=5)
"""How long a quota may let nothing through."""

_BY_TOPIC_ID = 13
_WAIT_MS, _OUT_OF_RANGE = 500, 1
_ALL, _READ_COMMITTED = 0, 1
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


class NobodyAnswers(ServerError):
    """No broker of the cluster can be reached: asking for something else is in vain too."""


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

    def __init__(
        self,
        config: KafkaConfig,
        fetch_bytes: int = 8 << 20,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._fetch_bytes = fetch_bytes
        self._servers = config.bootstrap_servers
        self._settings = settings(config.client)
        self._brokers = Brokers(config.bootstrap_servers, self._settings, tell)

    def close(self) -> None:
        self._brokers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def ask(self, request: Any) -> Any:  # noqa: ANN401 - generated
        """What any broker answers to this request."""
        return self._brokers.ask(request)

    def ask_leader(self, place: Place, request: Any, part: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - generated
        """Give that part of the leader's answer that has an error code, once it has none."""
        where = f"{place} on {self._servers}: {type(request).__name__}"
        told = self._led(place, where, lambda: request, part)
        if told.error_code:
            raise ServerError(f"{where}: {momentary.name(told.error_code)}")
        return told

    def ask_each_broker(self, request: Callable[[], Any]) -> Iterator[tuple[int, Any]]:
        """What every broker answers; each is asked with a request of its own."""
        for node in self._brokers.nodes():
            what = f"broker {node} of {self._servers}"
            yield node, momentary.ask_again(what, partial(self._brokers.ask, request(), node))

    def ask_broker(self, node: int, request: Any) -> Any:  # noqa: ANN401 - generated
        """What that broker answers."""
        return self._brokers.ask(request, node)

    def wait_out(self, milliseconds: int) -> None:
        """Wait as long as a broker said that a quota holds us back."""
        self._brokers.quota.wait_out(milliseconds)

    def batches(
        self, place: Place, start: int, end: int, *, undecided: bool = False
    ) -> Iterator[Fetched]:
        """Whole batches that begin before `end`; the next fetch runs while one is used.

        With `undecided` also those behind an open transaction, where nothing tells yet which are
        aborted. Raises OffsetGone where the log no longer holds what comes next, else ServerError.
        """
        if start >= end:
            return
        fetch = partial(self._fetch_whole, undecided=undecided)
        with ThreadPoolExecutor(1, "fetch") as ahead:
            position, silent = start, 0
            coming = ahead.submit(fetch, place, position, end)
            while position < end:
                fetched, reached = coming.result()
                silent = 0 if fetched.data else silent + 1
                if silent > SILENT:
                    raise ServerError(
                        f"{place} on {self._servers}: nothing arrives from offset {position} on, "
                        f"expected up to {end}{_why_nothing(fetched, position)}"
                    )
                position = reached
                if position < end:
                    coming = ahead.submit(fetch, place, position, end)
                if fetched.data:
                    yield fetched

    def _fetch_whole(
        self, place: Place, position: int, end: int, *, undecided: bool
    ) -> tuple[Fetched, int]:
        fetched = self.fetch(place, position, undecided=undecided)
        kept, reached = _whole(fetched.data, position, end, f"{place}@{position}")
        if kept < len(fetched.data):
            fetched = replace(fetched, data=memoryview(fetched.data)[:kept])
        return fetched, reached

    def fetch(self, place: Place, offset: int, *, undecided: bool = False) -> Fetched:
        """One answer of the leader, who is looked up again while it moves or reconnects.

        What a quota holds back is asked for again, HELD_BACK long.
        """
        where = f"{place}@{offset} on {self._servers}"
        isolation, began = _ALL if undecided else _READ_COMMITTED, time.monotonic()
        while True:
            told = self._led(
                place, where, lambda: self._request(place, offset, isolation), _partition
            )
            if told is not None:
                return _read(told, where)
            if time.monotonic() - began > HELD_BACK.total_seconds():
                raise ServerError(
                    f"{where}: a quota of the brokers has let nothing through for {HELD_BACK}; a "
                    "batch larger than it allows in its whole window never comes. Raise "
                    "consumer_byte_rate or request_percentage of this client"
                )

    def _led(
        self, place: Place, where: str, request: Callable[[], Any], part: Callable[[Any], Any]
    ) -> Any:  # noqa: ANN401 - generated
        """Ask whoever leads, and again while nobody does; other errors are the caller's."""
        told, alone = None, False

        def unanswered() -> str | None:
            nonlocal told, alone
            told = None
            try:
                told = part(self._brokers.ask(request(), self._brokers.leader(place)))
            except Disconnected as error:
                why = str(error)
            else:
                if told is None or told.error_code == 0:
                    return None
                why = momentary.name(told.error_code)
                if told.error_code not in UNKNOWN and not momentary.passes(told.error_code):
                    return None
            alone, why = self._look_again(why)
            unled = self._brokers.unled_for(place)
            if unled > momentary.PATIENCE.total_seconds():  # patience is had once for all of them
                raise ServerError(f"{where}: it has had no leader for {unled:,.0f} s")
            gone = told is not None and told.error_code in UNKNOWN
            return None if gone and not self._exists(place) else why

        try:
            what = f"{where}: an answer of its leader"
            wait_until(what, unanswered, within=momentary.PATIENCE, every=momentary.EVERY)
        except ServerError as error:
            if alone:
                raise NobodyAnswers(str(error)) from error
            raise
        return told

    def _exists(self, place: Place) -> bool:
        return self._brokers.exists(place.topic, place.topic_id)

    def _look_again(self, reason: str) -> tuple[bool, str]:
        """Ask who leads now; that nobody answers at all is a reason to wait as well."""
        try:
            self._brokers.refresh()
        except ServerError as error:
            return True, f"{reason}; {error}"
        return False, reason

    def _request(self, place: Place, offset: int, isolation: int) -> Any:  # noqa: ANN401 - generated
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
            isolation_level=isolation,
            session_id=0,
            session_epoch=-1,
            topics=[FetchRequest.FetchTopic(topic_id=place.topic_id, partitions=[wanted])],
            forgotten_topics_data=[],
            rack_id="",
            min_version=_BY_TOPIC_ID,
        )


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


def _why_nothing(fetched: Fetched, position: int) -> str:
    if fetched.last_stable <= position < fetched.high_watermark:
        return f"; it is decided up to {fetched.last_stable} only: a transaction is open there"
    return ""


def _partition(answer: Any) -> Any:  # noqa: ANN401 - generated
    """Give the one partition of an answer to a fetch; None: a quota holds it back."""
    if answer.error_code:
        return answer
    return answer.responses[0].partitions[0] if answer.responses else None


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
    reason = momentary.name(told.error_code)
    if told.error_code == _OUT_OF_RANGE:
        raise OffsetGone(f"{where}: {reason}")
    if told.error_code in UNKNOWN:
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
