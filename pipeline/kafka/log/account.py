"""What batches add up to; counted the same way while they are archived and when they are proven."""

from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict

from pipeline.errors import BackupError
from pipeline.kafka.log.batches import check_crc, marker, walk
from pipeline.kafka.log.gaps import Aborted, Gap, Gaps, Reason, totals
from pipeline.kafka.log.place import Place


class Counts(BaseModel):
    """One segment's batches in numbers.

    `largest` is the largest batch in bytes, `newest` the largest timestamp in milliseconds (-1 when
    there is no record).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    compacted: bool
    batches: int
    records: int
    bytes: int
    largest: int
    newest: int
    leader_epochs: tuple[tuple[int, int], ...]


class Content(Counts):
    """These numbers, and every gap.

    `aborted` names the transactions that touch the segment and were aborted, also those that begin
    before it.
    """

    aborted: tuple[Aborted, ...]
    gaps: tuple[Gap, ...]

    @property
    def totals(self) -> Mapping[Reason, int]:
        """Offsets without a record, by reason."""
        return totals(self.gaps)


class Account:
    """Checks and counts the batches of one partition as they pass, in order, segment by segment."""

    def __init__(
        self, place: Place, first: int, *, compacted: bool, noted: Content | None = None
    ) -> None:
        """Begin at an offset; `noted` tells of a segment what its batches cannot."""
        self._place, self._compacted = place, compacted
        self._gaps = Gaps(first, compacted=compacted, aborted=noted.aborted if noted else ())
        self._inside = False
        self._begin()
        for gap in noted.gaps[:1] if noted else ():
            if gap.reason is Reason.DELETED and gap.first == first:
                self.deleted_until(gap.end)

    def _begin(self) -> None:
        self._epochs: list[tuple[int, int]] = []
        self._batches = self._records = self._bytes = self._largest = 0
        self._newest = -1

    @property
    def position(self) -> int:
        return self._gaps.position

    @property
    def gaps(self) -> int:
        """How many gaps the segment has so far."""
        return len(self._gaps.found)

    def deleted_until(self, log_start: int) -> None:
        """Retention was faster than the reader."""
        self._gaps.deleted_until(log_start)
        self._inside = False

    def take(self, data: bytes | memoryview, aborted: Iterable[Aborted] = ()) -> int:
        """Account for whole batches and return how many records they hold.

        Raises BackupError at the first that is damaged.
        """
        where, before = str(self._place), self._records
        self._gaps.learn(aborted)
        for batch, view in walk(data, where):
            check_crc(batch, view, where)
            if self._inside and batch.base_offset < self.position:
                raise BackupError(
                    f"{where}: the batch at {batch.base_offset} overlaps what ends at "
                    f"{self.position}"
                )
            self._inside = True
            ended = marker(batch, view, where) if batch.control else None
            if contradiction := self._gaps.see(batch, ended):
                raise BackupError(f"{where}: {contradiction}")
            if not self._epochs or self._epochs[-1][0] != batch.leader_epoch:
                self._epochs.append((batch.leader_epoch, batch.base_offset))
            self._batches += 1
            self._bytes += batch.size
            self._largest = max(self._largest, batch.size)
            if not batch.control:
                self._records += batch.records
                self._newest = max(self._newest, batch.max_timestamp)
        return self._records - before

    def cut(self, end: int) -> Content:
        """Count what there was up to `end`, and begin the next segment there."""
        gaps, aborted = self._gaps.cut(end)
        content = Content(
            compacted=self._compacted,
            batches=self._batches,
            records=self._records,
            bytes=self._bytes,
            largest=self._largest,
            newest=self._newest,
            leader_epochs=tuple(self._epochs),
            aborted=aborted,
            gaps=gaps,
        )
        self._begin()
        return content
