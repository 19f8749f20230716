"""What a comparison of topics with tables found, and how sure it is."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.cdc.include_lists import column_altered, column_left_out, rows_left_out
from pipeline.cdc.keys import plain
from pipeline.cdc.last_states import LastStates
from pipeline.cdc.told_tables import GHOST, KEY, STALE, UNDECIDED, WITHOUT, ToldTable
from pipeline.postgres.wal.lsn import Lsn

PASS, FAIL, UNKNOWN = "PASS", "FAIL", "UNKNOWN"
MODED = {
    *("numeric", "money", "date", "time", "timetz", "timestamp", "timestamptz", "interval"),
    *("bytea", "hstore"),
}
"""Types whose values are written as a setting of the connector has it."""
READS_NO_ROWS = {"never", "no_data", "schema_only"}
"""Values of snapshot.mode with which rows of before the connector are in no event."""


@dataclass(frozen=True)
class TableVerdict:
    """One table beside its topic. Examples are the first few of each kind."""

    table: str
    topic: str
    rows: int = 0
    keys: int = 0
    events: int = 0
    without_event: int = 0
    ghosts: int = 0
    stale: int = 0
    out_of_order: int = 0
    duplicates: int = 0
    examples: Mapping[str, list[str]] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    """Why differences that were found prove nothing."""
    may_lack: tuple[str, ...] = ()
    """Why rows may be without an event, although none was lost."""
    unseen: tuple[str, ...] = ()
    """What was not looked at; it explains no difference."""
    not_compared: tuple[str, ...] = ()
    """What was left out of the comparison, as the connector is told to leave it out."""

    @property
    def differs(self) -> bool:
        """Whether the topic is not at what the table holds."""
        return bool(self.without_event or self.ghosts or self.stale)

    @property
    def outcome(self) -> str:
        """FAIL where a difference is sure; what would explain it makes it UNKNOWN."""
        lost = 0 if self.may_lack else self.without_event
        if self.out_of_order or (lost + self.ghosts + self.stale and not self.unknown):
            return FAIL
        return UNKNOWN if self.doubts else PASS

    @property
    def doubts(self) -> tuple[str, ...]:
        """All that keeps this from being sure."""
        return (*self.unknown, *self.may_lack, *self.unseen)

    def __str__(self) -> str:
        return (
            f"{self.table}: {self.outcome}  {self.rows:,} rows, {self.keys:,} keys; "
            f"{self.without_event:,} without event, {self.ghosts:,} ghosts, {self.stale:,} stale, "
            f"{self.out_of_order:,} out of order, {self.duplicates:,} duplicates"
        )


@dataclass(frozen=True)
class Consistency:
    """What a comparison found, and the moment at which it holds."""

    tables: tuple[TableVerdict, ...]
    lsn: str | None
    unknown: str | None = None
    """Why nothing is sure of any table."""

    @property
    def outcome(self) -> str:
        """The worst of all; nothing compared is UNKNOWN."""
        found = {table.outcome for table in self.tables} | ({UNKNOWN} if self.unknown else set())
        return next((one for one in (FAIL, UNKNOWN, PASS) if one in found), UNKNOWN)

    def facts(self) -> dict[str, Any]:
        """JSON-able."""
        tables = [asdict(table) | {"outcome": table.outcome} for table in self.tables]
        return {"outcome": self.outcome, "lsn": self.lsn, "unknown": self.unknown, "tables": tables}


def judged(
    told: Mapping[str, str], fold: LastStates, table: ToldTable, *, begun: bool
) -> TableVerdict:
    """Give the verdict of a table that was compared; `begun` is whether its topic has its start."""
    found, number = table.found, table.number
    flaws = [
        f"{plain(f.raw)}: {Lsn(f.position)} behind {Lsn(f.newest)}"
        for f in fold.disorder.get(number, ())
    ]
    return TableVerdict(
        table=str(table.table),
        topic=table.topic,
        rows=table.rows,
        keys=fold.keys(number),
        events=table.events,
        without_event=found.counts[WITHOUT],
        ghosts=found.counts[GHOST],
        stale=found.counts[STALE],
        out_of_order=fold.disordered[number],
        duplicates=fold.duplicates[number],
        examples=found.examples
        | ({"out of order": flaws} if flaws else {})
        | ({"unread": unread} if (unread := _unread(table)) else {}),
        unknown=tuple(_unknown(table)),
        may_lack=tuple(_may_lack(told, table, begun=begun)),
        unseen=tuple(_unseen(table)),
        not_compared=tuple(_left(told, table)),
    )


def _unread(table: ToldTable) -> list[str]:
    """Name the first records that cannot be read, each once."""
    found = [each for named in table.strangers.examples.values() for each in named]
    return list({each.partition(": ")[0]: each for each in reversed(found)}.values())[::-1]


def _unknown(table: ToldTable) -> Iterator[str]:
    """Say why differences prove nothing."""
    found = table.found.counts
    yield from (f"keys cannot be compared: {why}" for why in table.unlike)
    if table.keyless:
        yield f"{table.keyless:,} events have no key: set message.key.columns, or a primary key"
    if 0 < found[WITHOUT] + found[GHOST] + found[STALE] <= table.strangers.counts[KEY]:
        yield "records whose keys cannot be read may tell of these"
    if 2 * table.recognised < table.rows and found[GHOST]:
        yield f"{table.recognised:,} of {table.rows:,} rows are recognised by their keys"
    for column in table.table.columns if table.bare else ():
        if column.kind in MODED and 2 * table.differing[column.name] > table.rows:
            told = "JSON without a schema tells no modes: were they changed since it was written?"
            yield f"{column.name} differs in {table.differing[column.name]:,} rows: {told}"


def _unseen(table: ToldTable) -> Iterator[str]:
    """Say what was not looked at."""
    for kind, count in table.strangers.counts.items():
        first = table.strangers.examples[kind][0]
        yield f"{count:,} records cannot be read by their {kind}, first {first}"
    if count := table.found.counts[UNDECIDED]:
        yield f"{count:,} rows share a key with others, by what it leaves out"
    yield from table.values.unlike.values()


def _may_lack(told: Mapping[str, str], table: ToldTable, *, begun: bool) -> Iterator[str]:
    if not table.found.counts[WITHOUT]:
        return
    if not begun:
        yield f"{table.topic} has lost its first records, by its retention: they may have told them"
    if (mode := told.get("snapshot.mode", "initial")) in READS_NO_ROWS:
        yield f"snapshot.mode={mode}: rows of before were never read"
    if setting := rows_left_out(told, str(table.table)):
        yield f"{setting} leaves rows out"


def _left(told: Mapping[str, str], table: ToldTable) -> Iterator[str]:
    """Say which columns were not compared, or not wholly, and why."""
    for column in table.table.columns:
        whole = f"{table.table}.{column.name}"
        if setting := column_altered(told, whole):
            yield f"{column.name}: {setting}"
        elif column.name in table.values.untold:
            yield f"{column.name}: {column_left_out(told, whole) or 'no event has it'}"
        elif column.name in table.values.lossy:
            yield f"{column.name}: events do not tell {table.values.lossy[column.name]}"
