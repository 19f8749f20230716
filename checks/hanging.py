"""Transactions that hang: open in a partition, and no coordinator will ever end them.

The coordinator is asked, never a record's own time: that is the producer's word, and a history that
is written again has old ones. What it holds open within its timeout is work under way.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from kafka.errors import for_code
from kafka.protocol.admin import (
    DescribeProducersRequest,
    DescribeTransactionsRequest,
    ListTransactionsRequest,
)

from pipeline.kafka.cluster.momentary import ask_again
from pipeline.kafka.cluster.raw import RawReader
from pipeline.kafka.log.place import Place

GRACE = timedelta(minutes=1)
"""How much later than its timeout a coordinator may end a transaction: it looks every 10 s."""
_UNKNOWN_ID = 105  # TRANSACTIONAL_ID_NOT_FOUND: it was ended and forgotten meanwhile


class Hanging(NamedTuple):
    """A transaction that nobody ends, by its producer and the offset where it begins."""

    producer_id: int
    first: int
    why: str


def hanging(reader: RawReader, place: Place) -> list[Hanging]:
    """Tell which transactions hang in a partition. Raises ServerError where that is not known."""
    opened = _open(reader, place)
    if not opened:
        return []
    known = dict(_coordinated(reader, list(opened)))
    found = [
        Hanging(producer, first, why)
        for producer, first in opened.items()
        if (why := _why(reader, place, known.get(producer))) is not None
    ]
    still = _open(reader, place) if found else {}  # between the two questions it may have ended
    return [each for each in found if still.get(each.producer_id) == each.first]


def _open(reader: RawReader, place: Place) -> dict[int, int]:
    """Give the first offset of each open transaction, by its producer."""
    topic = DescribeProducersRequest.TopicRequest
    request = DescribeProducersRequest(
        topics=[topic(name=place.topic, partition_indexes=[place.partition])]
    )
    told = reader.ask_leader(place, request, lambda answer: answer.topics[0].partitions[0])
    return {
        each.producer_id: each.current_txn_start_offset
        for each in told.active_producers
        if each.current_txn_start_offset >= 0
    }


def _coordinated(reader: RawReader, producers: list[int]) -> Iterator[tuple[int, tuple[int, str]]]:
    """Each producer that some coordinator knows: which broker that is, and its transactional id."""

    def request() -> ListTransactionsRequest:
        return ListTransactionsRequest(
            state_filters=[], producer_id_filters=producers, duration_filter=-1
        )

    for node, told in reader.ask_each_broker(request):
        for each in told.transaction_states:
            yield each.producer_id, (node, each.transactional_id)


def _why(reader: RawReader, place: Place, coordinator: tuple[int, str] | None) -> str | None:
    if coordinator is None:
        return "no coordinator knows its producer"
    node, transactional_id = coordinator
    told = _described(reader, node, transactional_id)
    if told.error_code == _UNKNOWN_ID:
        return f"its coordinator has forgotten {transactional_id}"
    places = {(each.topic, partition) for each in told.topics for partition in each.partitions}
    if (place.topic, place.partition) not in places:
        return f"its coordinator has ended it ({transactional_id} is {told.transaction_state})"
    allowed = timedelta(milliseconds=told.transaction_timeout_ms)
    lasted = _now_ms() - told.transaction_start_time_ms
    if lasted > (allowed + GRACE) / timedelta(milliseconds=1):
        return (
            f"{transactional_id} is {told.transaction_state} for {lasted / 1000:,.0f} s, its "
            f"timeout is {allowed.total_seconds():,.0f} s"
        )
    return None


def _described(reader: RawReader, node: int, transactional_id: str) -> Any:  # noqa: ANN401 - generated
    what = f"transactional id {transactional_id}"

    def ask() -> Any:  # noqa: ANN401 - generated
        request = DescribeTransactionsRequest(transactional_ids=[transactional_id])
        (told,) = reader.ask_broker(node, request).transaction_states
        if told.error_code not in {0, _UNKNOWN_ID}:
            raise for_code(told.error_code)(what)
        return told

    return ask_again(what, ask)


def _now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)
