"""Find in the archived WAL the transactions that dropped, emptied or changed much of a table.

What WAL cannot show is said, not passed over: holes in the archive, branches that were not read,
tables made after the backup (WAL knows only their numbers), files that could not be followed. A
loop of many small transactions is not "much" in any of them, and is not listed.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.errors import RestoreError
from pipeline.postgres.history.changes import RMGRS, Changelog
from pipeline.postgres.history.irrevocable import Removal, Removals
from pipeline.postgres.history.tablefiles import Effect, Table, TableFiles
from pipeline.postgres.history.waldump import Ending, ReadableEnd, Reading
from pipeline.postgres.server.tools import Tools
from pipeline.postgres.wal.lsn import Lsn, segment_name
from pipeline.postgres.wal.segments import MergedWal, reading_view, wal_folders
from pipeline.postgres.wal.timelines import branches_of, timeline_at

ALWAYS_TOLD = frozenset({"drop", "truncate", "rewrite", "alter"})
FEW_ROWS = 100
MUCH = 0.10


@dataclass(frozen=True)
class Suspect:
    """One kind of change by one transaction; `lsn` is the start of its commit record.

    `removal` is told where files go before that, as those of a dropped database do.
    """

    xid: int
    lsn: Lsn
    time: datetime
    what: str
    rows: int | None
    tables: tuple[str, ...]
    removal: Removal | None = None

    @property
    def before(self) -> str:
        """The recovery target that keeps everything up to this transaction, and not it."""
        return self.removal.keeping if self.removal else f"before:xid:{self.xid}"


@dataclass(frozen=True)
class Findings:
    """Suspects in WAL order, how far the WAL could be read, and what could not be seen."""

    suspects: tuple[Suspect, ...]
    start: Lsn
    end: ReadableEnd
    unseen: tuple[str, ...]


@dataclass
class _Watch:
    """The tables asked for, and what is much of them."""

    files: TableFiles
    oids: set[int]
    with_later: bool
    at_least: int | None
    unseen: list[str] = field(default_factory=list)

    def watched(self, oid: int) -> bool:
        return oid in self.oids or (self.with_later and self.files.tables[oid].later)

    def much(self) -> int:
        """Rows in one transaction from which a change is told."""
        if self.at_least is not None:
            return self.at_least
        known = sum(self.files.tables[oid].rows or 0 for oid in self.oids)
        return max(FEW_ROWS, int(known * MUCH)) + 1


def find(
    repository: Path,
    tools: Tools,
    *,
    backup_facts: Mapping[str, Any],
    table: str,
    since: datetime | None = None,
    until: datetime | None = None,
    at_least: int | None = None,
    timeline: int | None = None,
) -> Findings:
    """Read the WAL from a base backup on and list what happened to `table` (name or schema.name).

    `since` and `until` choose among commits by time; the WAL before them is read all the same,
    because only it tells the table's files. Without `at_least`, much is more than 100 rows and more
    than a tenth of the table. `timeline` is that to follow: the backup's own unless told.
    """
    chosen = timeline or int(backup_facts["timeline"])
    watch = _watch(backup_facts["tables"], table, at_least)
    server = backup_facts.get("system_identifier")
    with reading_view(repository, chosen, tools, system_identifier=server) as wal:
        start = _start(wal, backup_facts)
        reading = Reading(wal, tools, start=start, rmgrs=RMGRS)
        suspects = [
            suspect
            for suspect in _suspects(reading, watch, int(backup_facts["database_oid"]))
            if (since is None or since <= suspect.time) and (until is None or suspect.time <= until)
        ]
    unseen = [*watch.unseen, *_beyond(reading.end, repository, chosen)]
    return Findings(tuple(suspects), start, reading.end, tuple(unseen))


def _watch(inventory: list[Mapping[str, Any]], table: str, at_least: int | None) -> _Watch:
    files = TableFiles(inventory)
    named = [one for one in files.tables.values() if table in one.spellings]
    if len(named) > 1:
        raise RestoreError(f"{table!r} is ambiguous: {', '.join(map(str, named))}; name the schema")
    oids = {one.oid for one in named}
    while more := {t.oid for t in files.tables.values() if t.parent in oids} - oids:
        oids |= more
    partitioned = not oids <= set(files.files.values())  # a root has no file of its own
    watch = _Watch(files, oids, with_later=not named or partitioned, at_least=at_least)
    if not named:
        watch.unseen.append(
            f"{table!r} is not in the inventory of this backup: it was made later or is misspelt; "
            "all tables made later are watched, by number"
        )
    elif partitioned:
        watch.unseen.append(
            f"partitions of {table!r} made after the backup are known by number only; all tables "
            "made later are watched"
        )
    return watch


def _start(wal: MergedWal, facts: Mapping[str, Any]) -> Lsn:
    """Start where the inventory was taken, else, where retention removed that, at the backup."""
    start = Lsn.parse(facts["start_lsn"])
    noted = Lsn.parse(facts.get("inventory_lsn", facts["start_lsn"]))
    name = segment_name(timeline_at(wal.spans, noted), noted, wal.segment_size)
    return noted if noted < start and name in wal.segments else start


def _suspects(reading: Reading, watch: _Watch, database: int) -> list[Suspect]:
    suspects = []
    changelog, removals = Changelog(database, watch.files.files), Removals()
    for record in reading:
        if record.rmgr != b"Transaction":
            changelog.note(record)
            removals.note(record)
            continue
        if (ending := Ending.of(record, reading.wal.segment_size)) is None:
            continue  # it goes on
        removal = removals.ended(ending)
        if not ending.committed:
            changelog.aborted(ending.xid, ending.subxacts)
        else:
            done = changelog.committed(ending.xid, ending.subxacts, record.rest)
            much = watch.much()
            suspects += _judged(ending, watch.files.commit(done), watch, much, removal)
            lost = [table for table in watch.files.lost if watch.watched(table.oid)]
            watch.unseen += [_lost(table, ending) for table in lost]
    return suspects


def _judged(
    commit: Ending, effects: list[Effect], watch: _Watch, much: int, removal: Removal | None
) -> list[Suspect]:
    """Group a transaction's effects by kind and keep those that are drastic or many."""
    rows: Counter[str] = Counter()
    tables: dict[str, dict[str, None]] = {}
    unknown: set[str] = set()
    for oid, kind, count in effects:
        if not watch.watched(oid):
            continue
        tables.setdefault(kind, {})[str(watch.files.tables[oid])] = None
        rows[kind] += count or 0
        if count is None:
            unknown.add(kind)
    return [
        Suspect(
            commit.xid,
            commit.lsn,
            commit.time,
            kind,
            None if kind in unknown and not rows[kind] else rows[kind],
            tuple(names),
            removal,
        )
        for kind, names in tables.items()
        if kind in ALWAYS_TOLD or rows[kind] >= much
    ]


def _lost(table: Table, commit: Ending) -> str:
    return (
        f"{table}: transaction {commit.xid} at {commit.lsn} replaced several files at once; "
        "row changes after it cannot be attributed"
    )


def _beyond(end: ReadableEnd, repository: Path, timeline: int) -> list[str]:
    notes = [] if end.complete else [f"nothing is known after {end.lsn}: {end.reason}"]
    branches = branches_of(timeline, wal_folders(repository))
    notes += [
        f"timeline {child} left timeline {timeline} at {lsn} and was not read"
        for child, lsn in branches.items()
    ]
    return notes
