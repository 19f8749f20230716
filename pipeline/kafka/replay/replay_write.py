"""One partition on its way back: what is acknowledged stands at the planned offset, once."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import cache
from typing import NamedTuple

from kafka.errors import KafkaError

from pipeline.errors import RestoreError, ServerError, TargetSpoilt
from pipeline.kafka.archive.reading import Archived
from pipeline.kafka.cluster.raw_produce import GONE, Appended, Producer, RawWriter, Refused, passing
from pipeline.kafka.log.batches import HEADER, Batch, Codec, packed, walk
from pipeline.kafka.log.place import Place
from pipeline.kafka.log.records import NO_TIMESTAMP, Record, encoded
from pipeline.kafka.replay.offset_map import Moved
from pipeline.kafka.replay.replay_filling import Filling, settled_end
from pipeline.kafka.replay.replay_plan import PartitionPlan
from pipeline.kafka.replay.replay_proof import differs
from pipeline.kafka.replay.replay_units import Unit, units

WINDOW, WINDOW_BYTES = 64, 16 << 20
"""Requests and bytes on their way for one partition.

More than the five batches of a producer that a broker remembers: their numbers still let none in
twice or out of order, and after an error the log's end tells which of them are there.
"""
ATTEMPTS = 10
FILLER = 100_000
"""Empty records in one batch of filler."""
_SEQUENCES = 1 << 31
_OUT_OF_STEP = frozenset({"OutOfOrderSequenceNumberError", "DuplicateSequenceNumberError"})
_NULLS = b"\x01\x01\x00"  # no key, no value, no headers


class Means(NamedTuple):
    """Who writes the records, kept over a resume, and what fills the offsets between them."""

    producer: Producer
    filling: Filling


class _Sent(NamedTuple):
    batch: bytes
    target: int
    records: int
    answer: "Future[Appended]"


class PartitionWriter:
    """Writes what a plan says behind what stands already; `tell` hears of each batch's bytes."""

    def __init__(
        self,
        writer: RawWriter,
        place: Place,
        means: Means,
        stopped: threading.Event,
        tell: Callable[[int], None],
    ) -> None:
        self._writer, self._place = writer, place
        self._producer, self._filling = means
        self._stopped, self._tell = stopped, tell
        self._window: deque[_Sent] = deque()
        self._flying, self._acknowledged, self._held_back = 0, False, 0
        self._present = self._position = self._sequence = 0
        self._before: tuple[Unit, int] | None = None

    def run(self, archived: Archived, plan: PartitionPlan, present: int) -> Moved:
        """Bring everything to its place; offsets before `present` were brought there before.

        Raises RestoreError as soon as the topic is not what this replay made of it.
        """
        self._present = present
        self._position = 0 if plan.head else plan.start
        self._head(plan)
        moved = Moved(plan.first, plan.end, plan.start)
        for unit in units(archived, plan.first, plan.end, dense=plan.dense):
            target = self._position if plan.dense else unit.first
            self._unit(unit, target)
            if plan.dense:
                for first, count in unit.runs:
                    moved.add(first, moved.target_end, count)
        if not plan.dense:
            self._fill(plan.end)
            moved.add(plan.first, plan.first, plan.end - plan.first)
        self._flush()
        self._compare_tail()
        self._expect_end()
        return moved

    def _head(self, plan: PartitionPlan) -> None:
        """Let the log start where the archived one does: fill it up to there, delete the filler."""
        while self._position < plan.head:
            count = min(FILLER, plan.head - self._position)
            batch, payload = filler(count)
            if not self._stands(self._position, count):
                self._send(batch, payload, self._position)
            self._advance(self._position, count)
        self._flush()
        if plan.head and self._writer.bounds(self._place)[0] < plan.head:
            self._writer.delete_before(self._place, plan.head)

    def _unit(self, unit: Unit, target: int) -> None:
        self._fill(target)
        if self._stands(target, unit.batch.records):
            self._before = (unit, target)
        else:
            self._compare_tail()
            self._send(unit.batch, unit.payload, target)
        self._advance(target, unit.batch.records)
        self._tell(unit.size)

    def _advance(self, target: int, count: int) -> None:
        self._position = target + count
        self._sequence = (self._sequence + count) % _SEQUENCES
        if self._stopped.is_set():
            raise RestoreError(f"{self._place}: stopped at offset {self._position}")

    def _stands(self, target: int, count: int) -> bool:
        """Whether an earlier run has brought it there."""
        if target < self._present < target + count:
            raise TargetSpoilt(
                f"{self._place} ends at {self._present}, inside a batch of this replay at "
                f"{target}: somebody else has written to it"
            )
        return target + count <= self._present

    def _compare_tail(self) -> None:
        """What stood there before the first batch of this run is ours: the archive tells."""
        if self._before is None:
            return
        (unit, target), self._before = self._before, None
        answer = self._writer.fetch(self._place, target)
        found = next(walk(answer.data, str(self._place), cut=True), None)
        problem = differs(unit, target, found) if found else "nothing is there"
        if problem:
            raise TargetSpoilt(f"{self._place}@{target} is not what the archive says: {problem}")
        known = self._writer.last_sequence(self._place, self._producer)
        if known is not None and (known + 1) % _SEQUENCES != self._sequence:
            raise TargetSpoilt(
                f"{self._place}: the broker has records up to number {known} of this replay, "
                f"the archive says {self._sequence - 1}"
            )

    def _send(self, header: Batch, payload: bytes | memoryview, target: int) -> None:
        while len(self._window) >= WINDOW or self._flying > WINDOW_BYTES:
            self._settle()
        if self._held_back:  # a broker is deaf meanwhile: what waits at its door would time out
            self._flush()
            self._writer.wait_out(self._held_back)
        batch = _ours(header, payload, self._producer, self._sequence)
        answer = self._writer.send(self._place, batch)
        self._window.append(_Sent(batch, target, header.records, answer))
        self._flying += len(batch)

    def _settle(self) -> None:
        """See the oldest batch in its place; send what an error has left open again."""
        first, told = self._window[0], None
        for _ in range(ATTEMPTS):
            if (told := self._unanswered(first)) is None:
                self._flying -= len(self._window.popleft().batch)
                return
            self._send_again()
            if not self._window or self._window[0].target != first.target:
                return  # it was there
            first = self._window[0]
        raise ServerError(f"{self._place}@{first.target}: {told}")

    def _unanswered(self, sent: _Sent) -> str | None:
        try:
            appended = sent.answer.result()
        except Refused as refused:
            if refused.reason in _OUT_OF_STEP:
                return str(refused)
            raise RestoreError(_explained(refused, self._place, sent)) from refused
        except (KafkaError, OSError) as error:
            if type(error).__name__ in GONE and self._acknowledged:
                raise TargetSpoilt(f"{self._place}: the topic was deleted meanwhile") from error
            if not passing(error):
                raise ServerError(f"{self._place}: {error!r}") from error
            return repr(error)
        self._acknowledged, self._held_back = True, appended.held_back
        if appended.base_offset != sent.target:
            raise TargetSpoilt(
                f"{self._place}: a batch went to offset {appended.base_offset}, planned was "
                f"{sent.target}: somebody else writes to this topic"
            )
        return None

    def _send_again(self) -> None:
        """Under the same numbers, what the log does not hold: a broker takes none of them twice."""
        wait([sent.answer for sent in self._window])
        end = settled_end(self._writer, self._place)
        left = [sent for sent in self._window if sent.target + sent.records > end]
        if left and left[0].target < end:
            raise TargetSpoilt(
                f"{self._place} ends at {end}, inside a batch of this replay at "
                f"{left[0].target}: somebody else has written to it"
            )
        again = [s._replace(answer=self._writer.send(self._place, s.batch)) for s in left]
        self._window, self._flying = deque(again), sum(len(sent.batch) for sent in again)

    def _flush(self) -> None:
        while self._window:
            self._settle()

    def _fill(self, target: int) -> None:
        """Let no consumer see anything between here and `target`."""
        at = max(self._position, self._present)
        if at >= target:
            self._position = max(self._position, target)
            return
        self._flush()
        self._compare_tail()
        while at < target:
            at = self._mark(at, target - at)
            if self._stopped.is_set():
                raise RestoreError(f"{self._place}: stopped at offset {at}")
        self._position = target

    def _mark(self, at: int, count: int) -> int:
        try:
            return self._filling.mark(self._place, at, count)
        except Refused as refused:
            raise RestoreError(
                f"{refused}. {self._filling.right}; --mode dense needs none"
            ) from refused

    def _expect_end(self) -> None:
        end = self._writer.bounds(self._place)[1]
        if end != self._position:
            raise TargetSpoilt(f"{self._place} ends at {end}, planned was {self._position}")


@cache
def filler(count: int) -> tuple[Batch, bytes]:
    """Build a batch of so many empty records; only ever below a log start."""
    data = encoded([Record(n, NO_TIMESTAMP, _NULLS) for n in range(count)], Codec.ZSTD)
    ((batch, view),) = walk(data, "filler")
    return batch, bytes(view[HEADER.size :])


def _ours(header: Batch, payload: bytes | memoryview, producer: Producer, sequence: int) -> bytes:
    """Bytes of the batch under our own name; brokers want it to begin at offset 0."""
    own = header._replace(
        base_offset=0,
        leader_epoch=-1,
        producer_id=producer.producer_id,
        producer_epoch=producer.epoch,
        base_sequence=sequence,
    )
    return packed(own, payload)


def _explained(refused: Refused, place: Place, sent: _Sent) -> str:
    size = f"{len(sent.batch):,} bytes"
    reasons = {
        "MessageSizeTooLargeError": f"the target takes no batch of {size}",
        "InvalidTimestampError": "the target does not take records of that age",
    }
    why = reasons.get(refused.reason, "")
    return f"{place}@{sent.target}, a batch of {size}: {refused}{f': {why}' if why else ''}"
