"""WAL records as PostgreSQL's own pg_waldump reads them: no parser of ours judges a record."""

import re
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import RestoreError
from pipeline.postgres.server.tools import Tools
from pipeline.postgres.wal.lsn import PAGE_SIZE, Lsn, record_end, segment_name, segment_start
from pipeline.postgres.wal.segments import MergedWal, reading_view
from pipeline.postgres.wal.timelines import Span

_RECORD = re.compile(
    rb"rmgr: (\w+) +len \(rec/tot\): +\d+/ *(\d+), tx: +(\d+), lsn: (\w+/\w+), "
    rb"prev \w+/\w+, desc: ([^\s+]+)(?:\+INIT)? ?(.*)"
)
_LAST_GOOD = re.compile(r"error in WAL record at (\w+/\w+): (.*)")
_PAGE_OF = re.compile(r"in (?:log|WAL) segment (\w{24})")
_ENDINGS = {b"COMMIT", b"COMMIT_PREPARED", b"ABORT", b"ABORT_PREPARED"}
_ENDED = re.compile(rb"(?:(\d+): )?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) UTC")
_SUBXACTS = re.compile(rb"; subxacts:([ \d]+)")


class Record(NamedTuple):
    """One line of pg_waldump, undecoded: most records are looked at once and dropped."""

    rmgr: bytes
    length: bytes
    xid: bytes
    at: bytes
    op: bytes
    rest: bytes

    @property
    def lsn(self) -> Lsn:
        return Lsn.parse(self.at.decode())

    def end(self, segment_size: int) -> Lsn:
        """Where the next record may start; a switch of segments claims the rest of its segment."""
        end = record_end(self.lsn, int(self.length), segment_size)
        if (self.rmgr, self.op) == (b"XLOG", b"SWITCH"):
            return Lsn(end + -end % segment_size)
        return end


@dataclass(frozen=True)
class ReadableEnd:
    """Where the readable WAL ends and why.

    `complete` is False when WAL is missing or damaged: more was asked for, or more lies behind.
    An archive that simply stops is complete as far as an archive can tell; only an expected end
    knows better. `segment` is the one that is missing, cannot be used, or holds the bad record.
    """

    lsn: Lsn
    timeline: int
    reason: str
    complete: bool
    segment: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """A COMMIT or ABORT record: `xid` is the top one, `lsn` and `end_lsn` bound the record."""

    xid: int
    committed: bool
    lsn: Lsn
    end_lsn: Lsn
    time: datetime
    subxacts: tuple[int, ...] = ()

    @classmethod
    def of(cls, record: Record, segment_size: int) -> "Ending | None":
        """Decode a record; None for any that does not end a transaction."""
        if record.op not in _ENDINGS or (told := _ENDED.match(record.rest)) is None:
            return None
        subxacts = _SUBXACTS.search(record.rest)
        return cls(
            xid=int(told[1] or record.xid),  # a prepared one is ended by another session
            committed=record.op.startswith(b"COMMIT"),
            lsn=record.lsn,
            end_lsn=record.end(segment_size),
            time=datetime.fromisoformat(told[2].decode()).replace(tzinfo=UTC),
            subxacts=tuple(map(int, subxacts[1].split())) if subxacts else (),
        )


class Reading:
    """The records of a lineage in WAL order, once; afterwards `end` says how far that was."""

    def __init__(
        self,
        wal: MergedWal,
        tools: Tools,
        *,
        start: Lsn,
        end: Lsn | None = None,
        rmgrs: tuple[str, ...] = (),
    ) -> None:
        self.wal = wal
        self._tools = tools
        self._start = start
        self._until = end
        self._filter = [word for rmgr in rmgrs for word in ("-r", rmgr)]
        self._end: ReadableEnd | None = None

    @property
    def end(self) -> ReadableEnd:
        """Where and why the reading ended; known once the records are exhausted."""
        if self._end is None:
            raise RuntimeError("the end of the WAL was asked for before its records were read")
        unusable, there = self.wal.unusable, self.wal.segments
        beside = "; ".join(unusable[name] for name in sorted(unusable.keys() & there))
        reason = f"{self._end.reason} (read from another copy, as {beside})"
        return replace(self._end, reason=reason) if beside else self._end

    def __iter__(self) -> Iterator[Record]:
        for span in self._spans():
            limit, missing = self._contiguous(span)
            failure = None
            if span.start < limit:
                failure = yield from self._dump(span.timeline, span.start, limit, *self._filter)
            if failure is not None and not self._only_beyond(failure, span, limit):
                self._end = self._stopped_by(failure, span, limit)
                return
            self._end = self._reached(span, limit, missing)
            if missing is not None:
                return
        if self._end is None:
            raise RestoreError(f"no WAL lies between {self._start} and {self._until}")

    def _spans(self) -> Iterator[Span]:
        """Parts of the lineage that lie in the wanted range, cut to it."""
        for span in self.wal.spans:
            start = max(span.start, self._start)
            ends = [end for end in (span.end, self._until) if end is not None]
            end = min(ends, default=None)
            if end is None or start < end:
                yield Span(span.timeline, start, end)

    def _contiguous(self, span: Span) -> tuple[Lsn, str | None]:
        """How far segments follow each other without a hole, and the first that is not there."""
        size = self.wal.segment_size
        position = segment_start(span.start, size)
        while span.end is None or position < span.end:
            name = segment_name(span.timeline, position, size)
            if name not in self.wal.segments:
                return position, name
            position += size
        return span.end, None

    def _dump(
        self, timeline: int, start: Lsn, limit: Lsn, *options: str
    ) -> Generator[Record, None, str | None]:
        """Run pg_waldump; its result is what the program failed with, if it failed.

        The limit keeps it from opening a segment that is not there, so a failure means damage.
        """
        with tempfile.TemporaryFile() as errors:
            arguments = ["-p", self.wal.folder, "-t", timeline, "-s", start, "-e", limit, *options]
            process = self._tools.popen("pg_waldump", *map(str, arguments), stderr=errors)
            with process:
                try:
                    for line in process.stdout or ():
                        if match := _RECORD.match(line):
                            yield Record._make(match.groups())
                except GeneratorExit:  # the reader has seen enough
                    process.kill()
                    raise
            errors.seek(0)
            told = errors.read().decode(errors="replace").strip()
        if "could not open" in told:  # a permission, a mount: no word about the WAL itself
            raise RestoreError(f"the archived WAL cannot be read: {told}")
        return None if process.returncode == 0 else told or f"exit code {process.returncode}"

    def _reached(self, span: Span, limit: Lsn, missing: str | None) -> ReadableEnd:
        lsn = self._end_of_last_record(span, limit)
        if missing is None:
            return ReadableEnd(lsn, span.timeline, f"read up to {limit}", complete=True)
        unusable = self.wal.unusable.get(missing)
        reason = f"segment {missing} {f'cannot be used: {unusable}' if unusable else 'is missing'}"
        complete = False
        if behind := self._segments_behind(missing):
            reason += f", and {behind} segments lie behind it"
        elif self._until is not None:
            reason += f"; WAL up to {self._until} was asked for"
        elif unusable is None:
            reason, complete = f"the archive ends before segment {missing}", True
        return ReadableEnd(lsn, span.timeline, reason, complete, missing)

    def _stopped_by(self, failure: str, span: Span, limit: Lsn) -> ReadableEnd:
        last_good = _LAST_GOOD.search(failure)
        lsn, told = span.start, failure
        if last_good is not None:
            lsn = self._end_of_last_record(span, limit, Lsn.parse(last_good[1]))
            told = last_good[2]
        # a record that begins in a sound segment may go on in a damaged one, which is told then
        page = _PAGE_OF.search(told)
        name = page[1] if page else segment_name(span.timeline, lsn, self.wal.segment_size)
        complete = (
            last_good is not None
            and name in self.wal.unfinished
            and not self._segments_behind(name)
            and (self._until is None or lsn >= self._until)
        )
        kind = "the written WAL ends" if complete else "the WAL is damaged"
        other = f"; {spare} is another copy" if (spare := self.wal.spare.get(name)) else ""
        return ReadableEnd(lsn, span.timeline, f"{kind} in {name}: {told}{other}", complete, name)

    def _only_beyond(self, failure: str, span: Span, limit: Lsn) -> bool:
        """Whether the record that failed is sound, and merely ends behind the limit.

        pg_waldump reads nothing behind its limit, and takes a header that the limit cuts for a bad
        one, so the same page is read once more in whole.
        """
        told = _LAST_GOOD.search(failure)
        if told is None or not limit % PAGE_SIZE:
            return False
        last = max(Lsn.parse(told[1]), span.start)
        whole_page = Lsn(limit + -limit % PAGE_SIZE)
        ends = (
            record.end(self.wal.segment_size)
            for record in self._dump(span.timeline, last, whole_page)
        )
        return any(end >= limit for end in ends)

    def _segments_behind(self, name: str) -> int:
        """Count segments of this lineage that only a reader past `name` would need."""
        return sum(other[8:] > name[8:] for other in self.wal.segments)

    def _end_of_last_record(self, span: Span, limit: Lsn, last: Lsn | None = None) -> Lsn:
        """Ask again without a filter: the last record may be one that nobody wanted."""
        start = last or segment_start(Lsn(max(limit - 1, 0)), self.wal.segment_size)
        while limit > span.start:
            record = None
            for record in self._dump(span.timeline, max(start, span.start), limit):  # noqa: B007 - the last is wanted
                pass
            if record is not None:
                return record.end(self.wal.segment_size)
            if start <= span.start:
                break
            start = Lsn(start - self.wal.segment_size)  # a record longer than a segment
        return span.start


def endings(reading: Reading) -> Iterator[Ending]:
    """Ends of transactions in WAL order, from a Reading of at least the rmgr Transaction."""
    for record in reading:
        if (ending := Ending.of(record, reading.wal.segment_size)) is not None:
            yield ending


def commit_order(reading: Reading) -> Iterator[Ending]:
    """Commits in WAL order: on which side of a target a transaction lies is read from this."""
    return (ending for ending in endings(reading) if ending.committed)


def readable_end(
    repository: Path, tools: Tools, *, timeline: int, start: Lsn, end: Lsn | None = None
) -> ReadableEnd:
    """Read all records from `start`, CRCs included, and say where the readable WAL ends and why."""
    with reading_view(repository, timeline, tools) as wal:
        reading = Reading(wal, tools, start=start, end=end, rmgrs=("Transaction",))
        for _ in reading:
            pass
        return reading.end
