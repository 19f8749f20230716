"""Record batches and transaction markers written as they are, with the offsets they got."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

from kafka.errors import for_code
from kafka.protocol.admin import DeleteRecordsRequest, DescribeProducersRequest
from kafka.protocol.consumer import ListOffsetsRequest
from kafka.protocol.producer import (
    InitProducerIdRequest,
    ProduceRequest,
    WriteTxnMarkersRequest,
)

from pipeline.config import KafkaConfig
from pipeline.errors import RestoreError, ServerError
from pipeline.kafka.cluster import momentary
from pipeline.kafka.cluster.connections import Connections
from pipeline.kafka.cluster.raw import RawReader
from pipeline.kafka.log.place import Place

ACK_MS = 30_000
MARKERS = 2_000
"""In one request: about 80 bytes of log each, 20,000 a second."""

_ALL_REPLICAS, _PRODUCE_BY_ID = -1, 13
_LATEST, _EARLIEST, _UNCOMMITTED = -1, -2, 0
_ONE_TRANSACTION = 1  # version of WriteTxnMarkers that does not want a rising epoch (KIP-890)
_COORDINATOR_EPOCH = 0
_NO_TOPIC = ".."  # a name that no topic may have
_NOT_AUTHORISED = 31
GONE = frozenset({"UnknownTopicIdError", "UnknownTopicOrPartitionError"})
"""Kafka's names for a topic that was deleted."""


class Refused(ServerError):
    """A broker refused for good; `reason` is Kafka's name for it."""

    def __init__(self, where: str, reason: str, told: str) -> None:
        super().__init__(f"{where}: {reason}{f' ({told})' if told else ''}")
        self.reason = reason


class Producer(NamedTuple):
    """An identity of ours at the brokers, under which a batch that is sent again counts once."""

    producer_id: int
    epoch: int


@dataclass(frozen=True)
class Appended:
    """Where the broker put a batch; of one it had already, where that stands.

    It reads nothing more from us for so many milliseconds: a quota holds us back.
    """

    base_offset: int
    held_back: int = 0


class RawWriter(RawReader):
    """Writes to the leaders of partitions, and reads; one connection for each broker."""

    def __init__(
        self,
        config: KafkaConfig,
        fetch_bytes: int = 8 << 20,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(config, fetch_bytes, tell)
        self._connections = Connections(config.bootstrap_servers, self._settings)

    def close(self) -> None:
        super().close()
        self._connections.close()

    def new_producer(self) -> Producer:
        """Ask for an identity that nobody has used."""
        what = f"a producer id from {self._servers}"
        request = InitProducerIdRequest(
            transactional_id=None, transaction_timeout_ms=ACK_MS, max_version=4
        )

        def ask() -> Producer:
            told = self.ask(request)
            _raise_for(told.error_code, what, "")
            return Producer(told.producer_id, told.producer_epoch)

        return momentary.ask_again(what, ask)

    def send(self, place: Place, batch: bytes) -> "Future[Appended]":
        """Append one batch; batches of a partition arrive in the order in which they are sent.

        The result raises Refused, or KafkaError with `retriable` when it may be sent again.
        """
        result: Future[Appended] = Future()
        sent = self._connections.soon(self._produce, place, batch)
        sent.add_callback(result.set_result)
        sent.add_errback(result.set_exception)
        return result

    def mark(self, place: Place, producer: Producer, count: int) -> None:
        """Append markers of transactions without records, at most `count`: an offset each.

        One that no answer came for may or may not have been written: read the end.
        """
        request = _markers(place.topic, place.partition, producer, min(count, MARKERS))
        told = self._connections.ask_leader(place, request)
        for each in told.markers:
            _raise_for(each.topics[0].partitions[0].error_code, f"{place}: marker", "")

    def may_mark(self) -> bool:
        """Whether brokers let us write markers; asked with one for a topic that cannot be."""
        told = self.ask(_markers(_NO_TOPIC, 0, Producer(0, 0), 1))
        return all(
            partition.error_code != _NOT_AUTHORISED
            for marker in told.markers
            for topic in marker.topics
            for partition in topic.partitions
        )

    def bounds(self, place: Place) -> tuple[int, int]:
        """Where the log starts and where the next record goes."""
        return self._offset(place, _EARLIEST), self._offset(place, _LATEST)

    def delete_before(self, place: Place, offset: int) -> None:
        """Let the log start at `offset`."""
        topic = DeleteRecordsRequest.DeleteRecordsTopic
        partition = topic.DeleteRecordsPartition(partition_index=place.partition, offset=offset)
        topics = [topic(name=place.topic, partitions=[partition])]
        self._told(place, DeleteRecordsRequest(topics=topics, timeout_ms=ACK_MS))

    def last_sequence(self, place: Place, producer: Producer) -> int | None:
        """What the broker remembers of that producer in this partition."""
        topic = DescribeProducersRequest.TopicRequest
        topics = [topic(name=place.topic, partition_indexes=[place.partition])]
        told = self._told(place, DescribeProducersRequest(topics=topics))
        known: Mapping[int, int] = {
            each.producer_id: each.last_sequence for each in told.active_producers
        }
        return known.get(producer.producer_id)

    def _offset(self, place: Place, which: int) -> int:
        topic = ListOffsetsRequest.ListOffsetsTopic
        partition = topic.ListOffsetsPartition(
            partition_index=place.partition, current_leader_epoch=-1, timestamp=which
        )
        request = ListOffsetsRequest(
            replica_id=-1,
            isolation_level=_UNCOMMITTED,
            topics=[topic(name=place.topic, partitions=[partition])],
            timeout_ms=ACK_MS,
            max_version=8,
        )
        return int(self._told(place, request).offset)

    def _told(self, place: Place, request: Any) -> Any:  # noqa: ANN401 - generated
        """What the leader answers of the partition; asked twice it does no harm."""
        try:
            return self.ask_leader(place, request, lambda told: told.topics[0].partitions[0])
        except ServerError as error:
            alone, _ = self._look_again("")
            if not alone and not self._exists(place):
                raise RestoreError(f"{place}: the topic was deleted meanwhile") from error
            raise

    async def _produce(self, place: Place, batch: bytes) -> Appended:
        topic = ProduceRequest.TopicProduceData
        partition = topic.PartitionProduceData(index=place.partition, records=batch)
        told = await self._connections.to_leader(
            place,
            ProduceRequest(
                transactional_id=None,
                acks=_ALL_REPLICAS,
                timeout_ms=ACK_MS,
                topic_data=[
                    topic(name=place.topic, topic_id=place.topic_id, partition_data=[partition])
                ],
                max_version=_PRODUCE_BY_ID,
            ),
        )
        answer = told.responses[0].partition_responses[0]
        _raise_for(answer.error_code, str(place), answer.error_message or "")
        return Appended(answer.base_offset, told.throttle_time_ms)


def _markers(topic: str, partition: int, producer: Producer, count: int) -> WriteTxnMarkersRequest:
    one = WriteTxnMarkersRequest.WritableTxnMarker
    where = one.WritableTxnMarkerTopic(name=topic, partition_indexes=[partition])
    marker = one(
        producer_id=producer.producer_id,
        producer_epoch=producer.epoch,
        transaction_result=True,
        topics=[where],
        coordinator_epoch=_COORDINATOR_EPOCH,
    )
    return WriteTxnMarkersRequest(markers=[marker] * count, max_version=_ONE_TRANSACTION)


def passing(error: BaseException) -> bool:
    """Whether the same request may succeed later; brokers may not know a new topic yet."""
    return momentary.momentary(error) or momentary.code_of(error) in momentary.UNKNOWN


def _raise_for(code: int, where: str, told: str) -> None:
    if code:
        error = for_code(code)(f"{where}: {told}")
        if passing(error):
            raise error
        raise Refused(where, momentary.name(code), told)
