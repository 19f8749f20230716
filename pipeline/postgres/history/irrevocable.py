"""Databases and tablespaces that replay removes before the transaction commits that drops them.

DROP DATABASE marks the database invalid in place and removes its folders, each by a record of its
own, ahead of the commit (dbcommands.c, dropdb); so does DROP TABLESPACE (tablespace.c). Right
before that commit they are gone already: what keeps them ends before the first such record.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from pipeline.postgres.history.waldump import Ending, Reading, Record
from pipeline.postgres.server.tools import Tools
from pipeline.postgres.wal.lsn import Lsn, as_record_end
from pipeline.postgres.wal.segments import MergedWal

FOLDERS = ("Database", "Tablespace")
"""Resource managers of the records that remove folders; few, and cheap to read."""
MARKS = ("Heap", *FOLDERS)
"""With them, the records that mark a database invalid are seen as well."""

_DATABASE = re.compile(rb"\b\d+/(\d+)\b")
_SHARED = b" rel 1664/0/"  # of shared relations, only pg_database is changed in place
_TUPLE = re.compile(rb"\boff:? (\d+).* rel (1664/0/\d+) blk (\d+)")


@dataclass(frozen=True)
class Removal:
    """What one transaction removes. `first` is the start of the first record that does so.

    `end` is where the record ends that commits it, or aborts it, which brings nothing back; None
    where the WAL ends before. `database` is None where it is a tablespace. `made_since` tells that
    a database was made afterwards, maybe one of that name.
    """

    xid: int
    what: str
    first: Lsn
    database: int | None = None
    end: Lsn | None = None
    made_since: bool = False

    @property
    def keeping(self) -> str:
        """The recovery target that keeps what is removed, and everything up to there."""
        return f"before:lsn:{self.first}"

    def told(self, stop: Lsn) -> str:
        """Say what replay that stands at `stop` has removed, and what keeps it."""
        if self.end is not None and self.end <= stop:
            told, onward = f"was dropped before, by transaction {self.xid}, which ends", ""
        else:
            told = f"is half removed there: its files go before transaction {self.xid} ends"
            onward = f"; to go past it: xid:{self.xid}" if self.end else ""
        where = f"at {self.end}" if self.end else "behind the readable WAL"
        return f"{self.what} {told} {where}. To keep it: {self.keeping}{onward}"


@dataclass
class Removals:
    """Gathers removals from records in WAL order; iterating tells them, unfinished ones last."""

    found: list[Removal] = field(default_factory=list)
    _open: dict[int, Removal] = field(default_factory=dict)
    _marked: dict[tuple[bytes, ...], Lsn] = field(default_factory=dict)
    _first: dict[int, Lsn] = field(default_factory=dict)
    _made: dict[int, int] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Removal]:
        return iter([*self.found, *self._open.values()])

    def refusal(self, stop: Lsn, wanted: int | None, *, replays_next: bool) -> str | None:
        """Tell what replay that stands at `stop` has removed and nobody dropped by then, or None.

        Nor may `wanted` be gone, the database that all is about. Where `replays_next`, the record
        that starts at `stop` is replayed as well.
        """
        for one in self:
            first = as_record_end(one.first)
            begun = first <= stop if replays_next else first < stop
            # at the end of all WAL another database is as its server left it
            between = stop < (one.end or stop)
            ours = one.database is not None and one.database == wanted and not one.made_since
            if begun and (between or ours):
                return one.told(stop)
        return None

    def take(self, record: Record, segment_size: int) -> Removal | None:
        """Take in any record; where it ends a transaction, answer what that removed."""
        if (ending := Ending.of(record, segment_size)) is not None:
            return self.ended(ending)
        self.note(record)
        return None

    def note(self, record: Record) -> None:
        """Take in any record but the end of a transaction."""
        if record.rmgr == b"Heap":
            self._note_mark(record)
        elif record.rmgr == b"Database" and (database := _DATABASE.search(record.rest)):
            if record.op == b"DROP":
                self._removes(record, "database", int(database[1]))
            else:
                self._makes(record)
        elif (record.rmgr, record.op) == (b"Tablespace", b"DROP"):
            self._removes(record, "tablespace", None)

    def ended(self, ending: Ending) -> Removal | None:
        """Take in the end of a transaction; what it removed, if it did."""
        self._made.pop(ending.xid, None)
        self._first.pop(ending.xid, None)
        if (removal := self._open.pop(ending.xid, None)) is None:
            return None
        removal = replace(removal, end=ending.end_lsn)
        self.found.append(removal)
        return removal

    def _note_mark(self, record: Record) -> None:
        """Remember which tuples of pg_database were changed in place, and who deletes one then.

        The mark is made with or without a transaction id; that of VACUUM looks the same.
        """
        if record.op not in {b"INPLACE", b"DELETE"} or _SHARED not in record.rest:
            return
        if (where := _TUPLE.search(record.rest)) is None:
            return
        if record.op == b"INPLACE":
            self._marked[where.groups()] = record.lsn
        elif (marked := self._marked.pop(where.groups(), None)) is not None:
            self._first.setdefault(int(record.xid), marked)

    def _removes(self, record: Record, kind: str, database: int | None) -> None:
        xid = int(record.xid)
        never_made = database is not None and self._made.get(xid) == database
        if xid == 0 or never_made:  # without a transaction it has moved to another tablespace
            return
        number = database or int(record.rest.split()[0])
        first = self._first.get(xid, record.lsn)
        self._open.setdefault(xid, Removal(xid, f"{kind} {number}", first, database))

    def _makes(self, record: Record) -> None:
        if xid := int(record.xid):
            made = _DATABASE.findall(record.rest)[-1]  # a copy names its template first
            self._made[xid] = int(made)
            self.found = [replace(one, made_since=True) for one in self.found]


def seen_whole(removals: Removals, wal: MergedWal, tools: Tools, start: Lsn) -> Removals:
    """Read once more, with what marks databases invalid: it stands among the changes of rows."""
    if all(one.database is None for one in removals):
        return removals
    whole = Removals()
    for record in Reading(wal, tools, start=start, rmgrs=("Transaction", *MARKS)):
        whole.take(record, wal.segment_size)
    return whole
