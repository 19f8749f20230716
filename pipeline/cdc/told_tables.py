"""One table's events taken into the fold, and its rows held against what they told."""

import struct
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from pipeline.cdc.envelopes import Envelope, envelope
from pipeline.cdc.fence import READ, Fence
from pipeline.cdc.forms import NotComparable
from pipeline.cdc.include_lists import column_altered
from pipeline.cdc.keys import KeyedTable, KeyReader, Layout, plain
from pipeline.cdc.last_states import EXAMPLES, KeyChange, LastStates, Side, Told
from pipeline.cdc.row_states import RowReader, digest
from pipeline.cdc.wire import Decoder, Undecodable

Row = Sequence[Any]
"""Columns as the server prints them, in the table's order; then whether the row is published."""
Record = Any
"""A message of the driver's, without an error."""
_KEY = struct.Struct(">H16s")
WITHOUT, GHOST, STALE, UNDECIDED = "without event", "ghost", "stale", "undecided"
KEY, VALUE = "key", "value"


@dataclass
class Examples:
    """What is different, counted, with the first few of each by name."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, what: str) -> None:
        self.counts[kind] += 1
        named = self.examples.setdefault(kind, [])
        if len(named) < EXAMPLES:
            named.append(what)


class ToldTable:
    """A table by its number in the fold."""

    def __init__(
        self,
        number: int,
        table: KeyedTable,
        topic: str,
        decoder: Decoder,
        told: Mapping[str, str],
    ) -> None:
        self.number, self.table, self.topic = number, table, topic
        altered = [c.name for c in table.columns if column_altered(told, f"{table}.{c.name}")]
        self.keys = KeyReader(decoder, table, topic, lambda: told)
        self.values = RowReader(table, lambda: told, altered)
        self.layouts: list[Layout] = []
        self.events = self.keyless = self.rows = 0
        self.bare = False
        self.recognised = 0
        self.unlike: dict[str, None] = {}
        """Why keys cannot be compared."""
        self.strangers = Examples()
        self.found = Examples()
        self.differing: Counter[str] = Counter()
        """In how many rows each column is another."""

    def take(self, fold: LastStates, record: Record, event: Envelope, side: Side) -> None:
        """Take in one event."""
        self.events += 1
        self.bare = self.bare or event.message.bare
        if event.op == "t":
            if side is not Side.AFTER:
                fold.empty(self.number)
            return
        if record.key() is None:
            self.keyless += 1
        elif (key := self._key(record)) is not None:
            state, readable = self._state(fold, key, record, event)
            fold.take(
                KeyChange(
                    table=self.number,
                    key=key,
                    partition=record.partition(),
                    side=side,
                    state=state,
                    position=None if event.op == READ else event.position,
                    identity=digest((self.number, key, event.op, event.lsn, event.xid), 16),
                    readable=readable,
                    reread=event.rereads,
                    raw=record.key(),
                )
            )

    def bury(self, fold: LastStates, record: Record, *, alone: bool) -> None:
        """Take in a tombstone; where the table is not `alone` in its topic, it may be another's."""
        if record.key() is not None and (key := self._key(record, noted=alone)) is not None:
            fold.bury(self.number, key, record.partition())

    def miss(self, fold: LastStates, record: Record, fence: Fence, why: object) -> None:
        """Take in a record of which nobody knows what it tells of its row."""
        self.strange(record, VALUE, f"its value is no event: {why}")
        if record.key() is not None and (key := self._key(record)) is not None:
            place = (record.topic(), record.partition(), record.offset())
            side = fence.side(place, READ, None, None)
            told = KeyChange(self.number, key, record.partition(), side, None, readable=False)
            fold.take(told._replace(raw=record.key()))

    def strange(self, record: Record, kind: str, why: object) -> None:
        """Note that the key or the value of a record cannot be read."""
        place = f"{record.topic()}[{record.partition()}]@{record.offset()}"
        self.strangers.add(kind, f"{place}: {why}")

    def _state(
        self, fold: LastStates, key: bytes, record: Record, event: Envelope
    ) -> tuple[bytes | None, bool]:
        """Give the row's state behind the event, and whether it could be read."""
        if event.op == "d":
            return None, True
        try:
            return self.values.state(event.row, fold.last(self.number, key)), True
        except Undecodable as error:
            self.strange(record, VALUE, error)
            return None, False

    def _key(self, record: Record, *, noted: bool = True) -> bytes | None:
        """Give a key as the fold has it; None, and noted or not, where it cannot be read."""
        raw = record.key()
        try:
            layout, key = self.keys(raw)
        except NotComparable as error:
            self.unlike[str(error)] = None
            return None
        except Undecodable as error:
            if noted:
                self.strange(record, KEY, f"its key {plain(raw)} is none of the table's: {error}")
            return None
        return _packed(self._at(layout), key)

    def _at(self, layout: Layout) -> int:
        for at, known in enumerate(self.layouts):  # one in nearly every topic
            if known is layout or known == layout:
                return at
        self.layouts.append(layout)
        return len(self.layouts) - 1

    def compare(self, fold: LastStates, rows: Iterator[Row]) -> None:
        """Hold every row against the fold, and then every key that no row has."""
        columns = {column: at for at, column in enumerate(self.table.columns)}
        places = [[(columns[c], f.of_row) for c, f in one.parts] for one in self.layouts]
        lossy = any(layout.loses for layout in self.layouts)
        for row in rows:
            keys = [
                _packed(at, key)
                for at, place in enumerate(places)
                for key in product(*(_forms(row[column], read) for column, read in place))
            ]
            told = fold.meet(self.number, keys)
            if not row[-1]:
                continue
            self.rows += 1
            self.recognised += told is not None
            self._judge(row, told, lossy=lossy)
        for told in fold.unmet(self.number):
            if told.states and None not in told.states:
                self.found.add(GHOST, plain(told.raw))

    def _judge(self, row: Row, told: Told | None, *, lossy: bool) -> None:
        if told is not None and not told.states:
            return  # an event that cannot be read is told by itself
        differing: list[str] = []
        for state in told.states if told else ():
            if state is not None:
                differing = list(self.values.differing(state, row))
                if not differing:
                    return
        if not differing:
            self.found.add(WITHOUT, self._named(row))
        elif not lossy:
            self.differing.update(differing)
            self.found.add(STALE, f"{self._named(row)} ({', '.join(differing)})")
        else:
            self.found.add(UNDECIDED, self._named(row))

    def _named(self, row: Row) -> str:
        names = self.table.primary or [c.name for layout in self.layouts for c, _ in layout.parts]
        chosen = names or [c.name for c in self.table.columns]
        texts = zip(self.table.columns, row, strict=False)
        return ", ".join(f"{t}" for c, t in texts if c.name in chosen)[:200]


def _packed(layout: int, key: Hashable) -> bytes:
    return _KEY.pack(layout, digest(key, 16))


def _forms(text: str | None, read: Callable[[str], tuple[Hashable, ...]]) -> tuple[Hashable, ...]:
    """Give every form in which a value may be in the topic."""
    return (None,) if text is None else read(text)


def take(  # noqa: PLR0917 - what a record is taken into
    record: Record,
    decoder: Decoder,
    fold: LastStates,
    tables: Mapping[str, ToldTable],
    here: Collection[ToldTable],
    fence: Fence,
) -> None:
    """Take in a record at the table that its source names; a tombstone, at all that are `here`."""
    if record.value() is None:
        for table in here:
            table.bury(fold, record, alone=len(here) == 1)
        return
    try:
        event = envelope(decoder.message(record.value()))
        of = tables.get(event.table)
        if of is not None and of not in here:
            for table in here:
                table.strange(record, VALUE, f"it is of {event.table}")
        elif of is not None:
            place = (record.topic(), record.partition(), record.offset())
            of.take(fold, record, event, fence.side(place, event.op, event.lsn, event.xid))
    except Undecodable as error:
        for table in here:
            table.miss(fold, record, fence, error)
