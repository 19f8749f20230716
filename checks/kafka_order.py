"""What the batches of one partition tell of their order, beside their offsets.

A broker takes a batch of an idempotent producer where its sequence goes on (KIP-98, KIP-360):
whoever removes, repeats or moves one, and makes the offsets follow, leaves one that does not.
"""

from collections.abc import Iterator

from pipeline.kafka.log.batches import Batch

_ROUND = 0x7FFFFFFF
"""Behind it sequences begin at 0 again."""


class Order:
    """Batches as they pass, segment after segment."""

    def __init__(self, first: int) -> None:
        self._position, self._leader = first, -1
        self._producers: dict[int, tuple[int, int]] = {}

    def problems(self, batch: Batch, *, compacted: bool) -> Iterator[str]:
        """What a batch contradicts of those before it; sequences tell nothing behind a hole."""
        if batch.base_offset > self._position:
            self._producers.clear()
        self._position = batch.next_offset
        if 0 <= batch.leader_epoch < self._leader:
            yield f"leader epoch {batch.leader_epoch} follows {self._leader}: of two histories"
        self._leader = max(self._leader, batch.leader_epoch)
        if batch.control or compacted or batch.producer_id < 0:
            return
        producer, epoch, begins = batch.producer_id, batch.producer_epoch, batch.base_sequence
        known, expected = self._producers.get(producer, (epoch, begins))
        if epoch < known:
            yield f"epoch {epoch} of producer {producer} follows its epoch {known}"
        elif begins != (wanted := expected if epoch == known else 0):
            yield f"producer {producer} goes on at sequence {begins}, expected {wanted}"
        after = (begins + batch.last_offset_delta + 1) & _ROUND
        self._producers[producer] = (epoch, after)
