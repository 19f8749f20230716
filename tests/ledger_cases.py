"""Ledgers made up for tests: histories of few keys with a clock that ticks once a record."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import strategies as st

from fixtures.ledger import Change, Ledger, Outcome, Survivor
from fixtures.ledger.record import FILE

TABLE = "orders"
States = dict[str, str | None]


@dataclass(frozen=True)
class Op:
    """One operation as a test draws it: keys it writes, those it deletes, what the client heard."""

    writes: frozenset[str]
    deletes: frozenset[str]
    outcome: Outcome

    def changes(self, number: int) -> list[Change]:
        return [
            *(Change(TABLE, key, state(number, key)) for key in sorted(self.writes)),
            *(Change(TABLE, key, None) for key in sorted(self.deletes - self.writes)),
        ]


def state(number: int, key: str) -> str:
    """The state an operation leaves; no two leave the same, because every row carries its rev."""
    return f"{number}-{key}"


def op(keys: str = "", *, deletes: str = "", outcome: Outcome = Outcome.OK) -> Op:
    return Op(frozenset(keys), frozenset(deletes), outcome)


def write(folder: Path, history: Iterable[Op]) -> Path:
    """Record the operations one after the other: number n is sent at 2n and told at 2n + 1."""
    ticks = count(2)
    ledger = Ledger(folder, clock=lambda: float(next(ticks)))
    for each in history:
        number = ledger.number()
        ledger.intend(number, "w0", each.changes(number))
        ledger.settle(number, each.outcome, ack={"xid": number, "lsn": number * 10})
    ledger.close()
    return folder / FILE


@contextmanager
def ledger_of(history: Iterable[Op]) -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        yield write(Path(folder), history)


def final(history: Iterable[Op], outcomes: frozenset[Outcome] = frozenset({Outcome.OK})) -> States:
    """State of each key after the operations with these outcomes; None where it was deleted."""
    states: States = {}
    for number, each in enumerate(history, start=1):
        if each.outcome in outcomes:
            states.update({key: left for _, key, left in each.changes(number)})
    return states


def rows(states: States) -> list[Survivor]:
    return [Survivor(TABLE, key, held) for key, held in states.items() if held is not None]


KEYS = "abcde"
keys = st.frozensets(st.sampled_from(KEYS), max_size=3)
histories = st.lists(st.builds(Op, keys, keys, st.sampled_from(Outcome)), min_size=1, max_size=14)
acknowledged = st.lists(st.builds(Op, keys, keys, st.just(Outcome.OK)), min_size=1, max_size=14)
