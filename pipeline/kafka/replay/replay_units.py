"""What of an archived partition goes back into a log: batches that brokers accept, in order."""

from collections.abc import Iterator
from typing import NamedTuple

from pipeline.kafka.archive.reading import Archived, Piece
from pipeline.kafka.log.batches import HEADER, Batch, walk
from pipeline.kafka.log.gaps import Gap, Reason
from pipeline.kafka.log.records import Record, encoded, runs, unpacked


class Unit(NamedTuple):
    """One batch on its way back.

    `runs` are the archived offsets of its records, (first, count). Of a batch that could not go
    back as it was, `records` are the archived ones, and `batch` and `payload` those written anew.
    """

    batch: Batch
    payload: memoryview
    runs: tuple[tuple[int, int], ...]
    records: tuple[Record, ...] | None

    @property
    def first(self) -> int:
        return self.runs[0][0]

    @property
    def size(self) -> int:
        return HEADER.size + len(self.payload)


def units(archived: Archived, first: int, end: int, *, dense: bool) -> Iterator[Unit]:
    """Everything in offsets [first, end) that a read_committed consumer sees.

    Markers and aborted records are left out. A batch is written anew where brokers would refuse it
    or change what consumers see: compaction left holes in it, the range cuts it, or its time is
    the broker's. Raises BackupError at the first byte that is not what was archived.
    """
    for piece in archived.pieces(first, end):
        yield from _of_segment(piece, max(first, piece.segment.first), end, dense=dense)


def _of_segment(piece: Piece, first: int, end: int, *, dense: bool) -> Iterator[Unit]:
    where = piece.segment.key
    aborted = iter([gap for gap in piece.content.gaps if gap.reason is Reason.ABORTED])
    gap = next(aborted, None)
    for block in piece.blocks:  # to the end, whatever the range: only there the segment is proven
        for batch, view in walk(block, where):
            last = batch.next_offset - 1
            while gap is not None and gap.end <= last:
                gap = next(aborted, None)
            hidden = batch.control or _inside(gap, last)
            if not hidden and batch.records and last >= first and batch.base_offset < end:
                yield from _units(batch, view, where, (first, end), dense=dense)


def _inside(gap: Gap | None, offset: int) -> bool:
    return gap is not None and gap.first <= offset < gap.end


def _units(
    batch: Batch, view: memoryview, where: str, within: tuple[int, int], *, dense: bool
) -> Iterator[Unit]:
    first, end = within
    cut = batch.base_offset < first or batch.next_offset > end
    if not (cut or batch.missing or batch.append_time):
        plain = batch._replace(attributes=int(batch.codec))
        run = ((batch.base_offset, batch.records),)
        yield Unit(plain, view[HEADER.size :], run, None)
        return
    records = [each for each in unpacked(batch, view, where) if first <= each.offset < end]
    parts = runs(records)
    for part in [records] if dense and records else parts:
        ((anew, data),) = walk(encoded(part, batch.codec), where)
        kept = tuple((run[0].offset, len(run)) for run in runs(part))
        yield Unit(anew, data[HEADER.size :], kept, tuple(part))


def first_at(archived: Archived, moment: int) -> int:
    """First offset whose record is not older than `moment`, in milliseconds, as brokers answer.

    Records need not lie in the order of their times: what follows may be older again.
    """
    for piece in archived.pieces():
        if piece.content.newest < moment:
            continue
        for block in piece.blocks:
            for batch, view in walk(block, piece.segment.key):
                if batch.max_timestamp < moment or batch.control:
                    continue
                for record in unpacked(batch, view, piece.segment.key):
                    if record.timestamp >= moment:
                        return record.offset
    return archived.index.end
