"""Offsets filled as any producer may: by transactions without a record, a marker each.

For brokers that let us write no markers. Several are on their way at a time, each under an id of
its own. One that was left open would end by itself later, amid other records: whoever goes on with
a replay takes its ids over first, and that ends what stands open.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from kafka.protocol.metadata import FindCoordinatorRequest
from kafka.protocol.producer import (
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
)

from pipeline.config import KafkaConfig
from pipeline.errors import RestoreError, ServerError
from pipeline.kafka.cluster import momentary
from pipeline.kafka.cluster.brokers import Brokers
from pipeline.kafka.cluster.raw import settings
from pipeline.kafka.cluster.raw_produce import Producer, RawWriter, Refused
from pipeline.kafka.log.place import Place
from pipeline.wait import wait_until

WIDTH = 16
"""Transactions at a time."""
WITHIN, PAUSE = timedelta(seconds=60), timedelta(milliseconds=10)
_MOST = 256  # markers between two looks at whether somebody stopped us
_TIMEOUT_MS = 60_000  # brokers allow 15 minutes at most by default
_OF_TRANSACTIONS = 1
_INIT, _ADD, _END = 4, 3, 3
"""Versions of a client that keeps its epoch (before KIP-890); brokers of today take them still."""


class EmptyTransactions:
    """Fills offsets of one partition after the other; takes over what an earlier run left."""

    right = "An empty transaction takes the right to WRITE under transactional ids"

    def __init__(self, kafka: KafkaConfig, writer: RawWriter, name: str) -> None:
        self._writer, self._turn = writer, 0
        self._brokers = Brokers(kafka.bootstrap_servers, settings(kafka.client))
        self._ids = [_Transactional(self._brokers, f"{name}-{number}") for number in range(WIDTH)]
        self._pool = ThreadPoolExecutor(WIDTH, "transactions")
        try:
            list(self._pool.map(_Transactional.take_over, self._ids))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._brokers.close()

    def mark(self, place: Place, at: int, count: int) -> int:
        """Append markers to a log that ends at `at`, at most `count`; tells where it ends then.

        Raises Refused, ServerError where brokers do not answer, and RestoreError where more
        arrived than was asked for: a coordinator that moves may write a marker twice.
        """
        count = min(count, _MOST)
        width = min(WIDTH, count)
        chosen = [self._ids[(self._turn + n) % WIDTH] for n in range(width)]
        self._turn += width  # one that has just ended is not ready at once
        shares = [count // width + (n < count % width) for n in range(width)]
        list(self._pool.map(lambda one, share: one.mark(place, share), chosen, shares))

        def unwritten() -> str | None:
            end = self._writer.bounds(place)[1]
            if end > at + count:
                raise RestoreError(f"{place} ends at {end}, planned was {at + count}")
            return None if end == at + count else f"its end is {end}"

        wait_until(f"{place}: markers up to {at + count}", unwritten, within=WITHIN, every=PAUSE)
        return at + count


class _Transactional:
    """One transactional id: at most one transaction of it is open."""

    def __init__(self, brokers: Brokers, name: str) -> None:
        self._brokers, self._name = brokers, name
        self._coordinator: int | None = None
        self._producer = Producer(-1, -1)

    def take_over(self) -> None:
        """End what is open under this id, and fence whoever still uses it."""
        told = self._until(
            InitProducerIdRequest(
                transactional_id=self._name,
                transaction_timeout_ms=_TIMEOUT_MS,
                producer_id=-1,
                producer_epoch=-1,
                max_version=_INIT,
            ),
            lambda told: told.error_code,
        )
        self._producer = Producer(told.producer_id, told.producer_epoch)

    def mark(self, place: Place, count: int) -> None:
        """Commit so many transactions without a record; their markers may arrive a little later."""
        topic = AddPartitionsToTxnRequest.AddPartitionsToTxnTopic
        for _ in range(count):
            self._until(
                AddPartitionsToTxnRequest(
                    v3_and_below_transactional_id=self._name,
                    v3_and_below_producer_id=self._producer.producer_id,
                    v3_and_below_producer_epoch=self._producer.epoch,
                    v3_and_below_topics=[topic(name=place.topic, partitions=[place.partition])],
                    max_version=_ADD,
                ),
                lambda told: (
                    told.results_by_topic_v3_and_below[0]
                    .results_by_partition[0]
                    .partition_error_code
                ),
            )
            self._until(
                EndTxnRequest(
                    transactional_id=self._name,
                    producer_id=self._producer.producer_id,
                    producer_epoch=self._producer.epoch,
                    committed=True,
                    max_version=_END,
                ),
                lambda told: told.error_code,
            )

    def _until(self, request: Any, code: Callable[[Any], int]) -> Any:  # noqa: ANN401 - generated
        """Ask the coordinator until its answer carries no error that passes by itself.

        Asking again is safe: what was added is in the transaction, what has ended has ended.
        """
        what, told = f"transactional id {self._name}: {type(request).__name__}", None

        def unanswered() -> str | None:
            nonlocal told
            try:
                told = self._brokers.ask(request, self._leader())
            except ServerError as broken:
                self._coordinator = None
                return str(broken)
            if not (number := code(told)):
                return None
            name = momentary.name(number)
            if not momentary.passes(number) and number not in momentary.UNKNOWN:
                raise Refused(what, name, "")
            if name != "ConcurrentTransactionsError":
                self._coordinator = None
            return name

        wait_until(what, unanswered, within=WITHIN, every=PAUSE)
        return told

    def _leader(self) -> int:
        """The broker that coordinates this id."""
        if self._coordinator is None:
            self._brokers.refresh()
            request = FindCoordinatorRequest(
                key=self._name,
                key_type=_OF_TRANSACTIONS,
                coordinator_keys=[self._name],
            )
            (told,) = self._brokers.ask(request).coordinators
            if told.error_code:
                raise ServerError(f"coordinator: {momentary.name(told.error_code)}")
            self._coordinator = int(told.node_id)
        return self._coordinator
