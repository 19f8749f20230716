"""What batches add up to; counted the same way while they are archived and when they are proven."""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from pipeline.errors import BackupError
from pipeline.kafka.batches import check_crc, marker, walk
from pipeline.kafka.gaps import Aborted, Gap, Gaps
from pipeline.kafka.raw import Place


class Content(BaseModel):
    """A partition's batches in numbers; `largest` is what a target must accept, in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    compacted: bool
    batches: int
    records: int
    bytes: int
    largest: int
    leader_epochs: tuple[tuple[int, int], ...]
    aborted: tuple[Aborted, ...]
    gaps: tuple[Gap, ...]


class Account:
    """Checks and counts the batches of one partition as they pass, in order."""

    def __init__(
        self, place: Place, start: int, *, compacted: bool, aborted: Iterable[Aborted] = ()
    ) -> None:
        self._place, self._compacted = place, compacted
        self._gaps = Gaps(start, compacted=compacted, aborted=aborted)
        self._aborted = set(aborted)
        self._epochs: list[tuple[int, int]] = []
        self._batches = self._records = self._bytes = self._largest = 0

    @property
    def position(self) -> int:
        return self._gaps.position

    def deleted_until(self, log_start: int) -> None:
        """Retention was faster than the reader."""
        self._gaps.deleted_until(log_start)

    def take(self, data: bytes, aborted: Iterable[Aborted] = ()) -> None:
        """Account for whole batches. Raises BackupError at the first that is damaged."""
        where = str(self._place)
        self._aborted.update(aborted)
        self._gaps.learn(aborted)
        for batch, view in walk(data, where):
            check_crc(batch, view, where)
            if self._batches and batch.base_offset < self.position:
                raise BackupError(
                    f"{where}: the batch at {batch.base_offset} overlaps what ends at "
                    f"{self.position}"
                )
            self._gaps.see(batch, marker(batch, view, where) if batch.control else None)
            if not self._epochs or self._epochs[-1][0] != batch.leader_epoch:
                self._epochs.append((batch.leader_epoch, batch.base_offset))
            self._batches += 1
            self._records += 0 if batch.control else batch.records
            self._bytes += batch.size
            self._largest = max(self._largest, batch.size)

    def close(self, end: int) -> Content:
        """Count what there was up to `end`."""
        return Content(
            compacted=self._compacted,
            batches=self._batches,
            records=self._records,
            bytes=self._bytes,
            largest=self._largest,
            leader_epochs=tuple(self._epochs),
            aborted=tuple(sorted(self._aborted, key=lambda told: told.first_offset)),
            gaps=tuple(self._gaps.close(end)),
        )
