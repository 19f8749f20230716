"""What each transaction does to files and tables, gathered from WAL records until it ends."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.postgres.history.waldump import Record
from pipeline.postgres.wal.lsn import Lsn

RMGRS = ("Transaction", "Storage", "Standby", "Heap", "Heap2", "Database")

_ROWS = {
    b"INSERT": "insert",
    b"DELETE": "delete",
    b"UPDATE": "update",
    b"HOT_UPDATE": "update",
}
# PostgreSQL 16 changed the words: before it "5 tuples" and "relids 1 2"
_TUPLES = re.compile(rb"ntuples: (\d+)|(\d+) tuples")
_RELIDS = re.compile(rb"\brelids:? \[?([\d, ]+)")
_LOCKED = re.compile(rb"db (\d+) rel (\d+)")
_RELS = re.compile(rb"; rels: ([^;]*)")
_STATS = re.compile(rb"; dropped stats: ([^;]*)")
_RELCACHE = re.compile(rb"\brelcache (\d+)")


@dataclass
class Changes:
    """What a transaction, or a part of one, did; files and relations by their numbers."""

    rows: Counter[tuple[int, str]] = field(default_factory=Counter)
    created: list[tuple[Lsn, int]] = field(default_factory=list)
    locked_first: set[int] = field(default_factory=set)
    locked: set[int] = field(default_factory=set)
    truncated: set[int] = field(default_factory=set)
    shrunk: set[int] = field(default_factory=set)
    drops_database: bool = False

    def add(self, part: "Changes") -> None:
        """Take in what a subtransaction did."""
        self.rows += part.rows
        self.created += part.created
        self.locked_first |= part.locked_first
        self.locked |= part.locked
        self.truncated |= part.truncated
        self.shrunk |= part.shrunk
        self.drops_database |= part.drops_database


@dataclass(frozen=True)
class Committed:
    """A whole transaction with what only its commit record tells."""

    changes: Changes
    dropped: list[int]  # files, in the order in which the transaction gave them up
    gone: set[int]  # relations whose statistics were dropped: they exist no more
    invalidated: set[int]  # relations whose definition changed


class Changelog:
    """Unfinished transactions of one database, as far as they concern the followed files."""

    def __init__(self, database: int, files: Iterable[int]) -> None:
        self._followed = {b"%d" % file for file in files}
        self._open: dict[int, Changes] = {}
        self._database = b"%d" % database
        self._block = re.compile(rb"blkref #0: rel \d+/%d/(\d+) " % database)
        self._path = re.compile(rb"\b%d/(\d+)(?![\d/])" % database)
        self._relation = re.compile(rb"\b2/%d/(\d+)" % database)  # 2: PGSTAT_KIND_RELATION
        self._folder = re.compile(rb"\b\d+/%d(?![\d/])" % database)

    def note(self, record: Record) -> None:
        """Take in any record but the end of a transaction."""
        rmgr, _, xid, _, op, rest = record
        if rmgr == b"Heap" and (kind := _ROWS.get(op)):
            if (file := self._block.search(rest)) and file[1] in self._followed:
                self._changes(xid).rows[int(file[1]), kind] += 1
        elif op == b"MULTI_INSERT":
            file, tuples = self._block.search(rest), _TUPLES.search(rest)
            if file and tuples and file[1] in self._followed:
                self._changes(xid).rows[int(file[1]), "insert"] += int(tuples[1] or tuples[2])
        elif rmgr not in {b"Heap2", b"Transaction"} and xid != b"0":
            self._note_definition(record)

    def _note_definition(self, record: Record) -> None:
        rmgr, _, xid, _, op, rest = record
        if rmgr == b"Storage" and (path := self._path.search(rest)):
            changes, file = self._changes(xid), int(path[1])
            if op != b"CREATE":
                changes.shrunk.add(file)
                return
            changes.created.append((record.lsn, file))
            if file in changes.locked:
                changes.locked_first.add(file)
            self._followed.add(path[1])
        elif rmgr == b"Standby" and op == b"LOCK":
            relations = (int(rel) for db, rel in _LOCKED.findall(rest) if db == self._database)
            self._changes(xid).locked.update(relations)
        elif op == b"TRUNCATE" and (relids := _RELIDS.search(rest)):
            self._changes(xid).truncated.update(map(int, relids[1].replace(b",", b" ").split()))
        elif rmgr == b"Database" and op == b"DROP" and self._folder.search(rest):
            self._changes(xid).drops_database = True

    def _changes(self, xid: bytes) -> Changes:
        number = int(xid)
        if (changes := self._open.get(number)) is None:
            changes = self._open[number] = Changes()
        return changes

    def committed(self, xid: int, subxacts: Iterable[int], rest: bytes) -> Committed:
        """Close a transaction and its subtransactions; `rest` is the text of the commit record."""
        changes = Changes()
        for part in (xid, *subxacts):
            changes.add(self._open.pop(part, Changes()))
        changes.created.sort()
        rels, stats = _RELS.search(rest), _STATS.search(rest)
        dropped = [int(file) for file in self._path.findall(rels[1])] if rels else []
        return Committed(
            changes,
            dropped[::-1],  # pending deletes are a stack (storage.c)
            {int(oid) for oid in self._relation.findall(stats[1])} if stats else set(),
            {int(oid) for oid in _RELCACHE.findall(rest)},
        )

    def aborted(self, xid: int, subxacts: Iterable[int]) -> None:
        """Forget what a transaction or subtransaction did."""
        for part in (xid, *subxacts):
            self._open.pop(part, None)
