"""What topics tell of each row at last, folded on disk: memory is bounded whatever their size.

Events are taken in the order in which a topic has them. Each is of one side of a fence: told
before it, told after it, or it cannot be said of which. The state at the fence is that of the last
event before it, or of one that may be.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Self

MEMORY = 64 << 20
"""Bytes of pages that are held; what is more lies in a file that ends with the process."""
Position = tuple[int | None, int]
"""The end of the transaction that was decoded before, where told, and the change's own record."""


class Side(IntEnum):
    """On which side of the fence an event is."""

    BEFORE = 0
    EITHER = 1
    AFTER = 2


class KeyChange(NamedTuple):
    """One event of a key. `state` is None where it tells that there is no such row."""

    table: int
    key: bytes
    partition: int
    side: Side
    state: bytes | None
    position: Position | None = None
    """Of a change; a row that was read has none."""
    identity: bytes = b""
    readable: bool = True
    reread: bool = False
    """Whether every row of the table is being read anew: positions before do not bind it."""
    raw: bytes = b""


class Told(NamedTuple):
    """What a key was told to be at the fence: any of `states`, of which None is no row.

    `number` orders keys by their last events. Empty where it cannot be said.
    """

    states: tuple[bytes | None, ...]
    number: int
    raw: bytes


@dataclass(frozen=True)
class Flaw:
    """A change that came behind a later one of its key, and had not come before."""

    raw: bytes
    position: int
    newest: int


_SCHEMA = """
    CREATE TABLE keys (
        tab INTEGER, key BLOB, part INTEGER, number INTEGER, state BLOB, live INTEGER,
        other BLOB, doubt INTEGER, side INTEGER, ended INTEGER, lsn INTEGER, era INTEGER,
        met INTEGER, raw BLOB, PRIMARY KEY (tab, key)
    ) WITHOUT ROWID;
    CREATE TABLE seen (id BLOB PRIMARY KEY) WITHOUT ROWID;
"""
_GET = """
    SELECT part, number, state, live, other, doubt, side, ended, lsn, era FROM keys
     WHERE tab = ? AND key = ?"""
_PUT = "INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)"
NONE, GONE, LIVE, UNREADABLE = range(4)
"""What `live` and `doubt` say: nothing, no row, a row, or that nobody knows."""


class LastStates:
    """Keys of tables by number, with what was told of each at last."""

    def __init__(self, memory: int = MEMORY) -> None:
        self._kept = sqlite3.connect("", isolation_level=None)  # "" is a file without a name
        self._kept.executescript(
            f"PRAGMA cache_size = -{memory >> 10}; PRAGMA journal_mode = OFF;"
            f"PRAGMA synchronous = OFF; PRAGMA temp_store = FILE; {_SCHEMA}"
        )
        self._number = 0
        self._eras: Counter[int] = Counter()
        self._rereading: dict[int, bool] = {}
        self.duplicates: Counter[int] = Counter()
        self.disorder: dict[int, list[Flaw]] = {}
        self.disordered: Counter[int] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.close()

    def take(self, change: KeyChange) -> None:
        """Take in the next event of a topic."""
        self._number += 1
        again = self._repeated(change)
        if not again:
            self._begin_era(change)
        key = (change.table, change.key)
        row = self._kept.execute(_GET, key).fetchone()
        part, number, state, live, other, doubt, _, ended, lsn, era = row or (
            *(change.partition, 0, None, NONE, None, NONE, 0, None, None, -1),
        )
        if era != self._eras[change.table]:
            ended = lsn = None
        moved = part != change.partition
        if (at := change.position) is not None:
            later = _later(at, (ended, lsn))
            if not again and lsn is not None and not later and not moved:
                self._flawed(change, at[1], lsn)
            if moved and not later:  # the key's partition is another since, and knows better
                return
            if later:
                ended, lsn = at
        if change.side is Side.BEFORE:
            number, state, live = self._number, change.state, _life(change)
            other, doubt = None, NONE
            if not change.readable:
                live, doubt = live or GONE, UNREADABLE
        elif change.side is Side.EITHER and doubt != UNREADABLE:
            other, doubt = change.state, _life(change)
        self._kept.execute(
            _PUT,
            (
                *(*key, change.partition, number, state, live, other, doubt, int(change.side)),
                *(ended, lsn, self._eras[change.table], change.raw),
            ),
        )

    def bury(self, table: int, key: bytes, partition: int) -> None:
        """Take in a tombstone: it belongs where the event before it does."""
        row = self._kept.execute(_GET, (table, key)).fetchone()
        if row is None or row[0] != partition or row[6] == Side.AFTER:
            return
        self._number += 1
        before = "number = :n, state = NULL, live = :gone, other = NULL, doubt = 0"
        what = before if row[6] == Side.BEFORE else "other = NULL, doubt = :gone"
        asked = {"n": self._number, "gone": GONE, "table": table, "key": key}
        self._kept.execute(f"UPDATE keys SET {what} WHERE tab = :table AND key = :key", asked)

    def empty(self, table: int) -> None:
        """Take in a truncation: no key that was told so far has a row."""
        self._kept.execute(
            "UPDATE keys SET state = NULL, live = ?, other = NULL, doubt = 0 WHERE tab = ?",
            (GONE, table),
        )

    def last(self, table: int, key: bytes) -> bytes | None:
        """The state that the newest event of a key told, of whatever side before the fence."""
        row = self._kept.execute(_GET, (table, key)).fetchone()
        if row is None:
            return None
        return bytes(row[4]) if row[4] is not None else row[2] and bytes(row[2])

    def meet(self, table: int, keys: Iterable[bytes]) -> Told | None:
        """Take a row for met by any of its keys; tell the one with the newest event."""
        found: list[Told] = []
        for key in keys:
            asked = "SELECT state, other, doubt, number, raw FROM keys WHERE tab=? AND key=?"
            row = self._kept.execute(asked, (table, key)).fetchone()
            if row is not None:
                self._kept.execute("UPDATE keys SET met = 1 WHERE tab=? AND key=?", (table, key))
                found.append(_told(row))
        return max(found, key=lambda told: told.number, default=None)

    def unmet(self, table: int) -> Iterator[Told]:
        """Yield the keys that no row was met for."""
        asked = "SELECT state, other, doubt, number, raw FROM keys WHERE tab=? AND met=0"
        yield from map(_told, self._kept.execute(asked, (table,)))

    def keys(self, table: int) -> int:
        """How many keys are alive by the last event before the fence."""
        (count,) = self._kept.execute(
            "SELECT count(*) FROM keys WHERE tab = ? AND live = ?", (table, LIVE)
        ).fetchone()
        return int(count)

    def _begin_era(self, change: KeyChange) -> None:
        if change.reread and not self._rereading.get(change.table):
            self._eras[change.table] += 1
        self._rereading[change.table] = change.reread

    def _repeated(self, change: KeyChange) -> bool:
        """Whether this very event came before; counted."""
        if not change.identity:
            return False
        made = self._kept.execute("INSERT OR IGNORE INTO seen VALUES (?)", (change.identity,))
        again = made.rowcount == 0
        self.duplicates[change.table] += again
        return again

    def _flawed(self, change: KeyChange, position: int, newest: int) -> None:
        self.disordered[change.table] += 1
        examples = self.disorder.setdefault(change.table, [])
        if len(examples) < EXAMPLES:
            examples.append(Flaw(change.raw, position, newest))


EXAMPLES = 5


def _life(change: KeyChange) -> int:
    if not change.readable:
        return UNREADABLE
    return GONE if change.state is None else LIVE


def _later(at: Position, newest: tuple[int | None, int | None]) -> bool:
    """Whether a change is not before the newest of its key: transactions are sent as they end."""
    ended, lsn = newest
    if lsn is None:
        return True
    if at[0] is not None and ended is not None and at[0] != ended:
        return at[0] > ended
    return at[1] >= lsn


def _told(row: Sequence[object]) -> Told:
    state, other, doubt, number, raw = row
    if doubt == UNREADABLE:
        return Told((), number, raw)  # type: ignore[arg-type] # as the table has them
    states: tuple[object, ...] = (state,) if doubt == NONE else (state, other)
    return Told(states, number, raw)  # type: ignore[arg-type]
