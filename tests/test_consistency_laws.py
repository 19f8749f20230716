"""Laws of a topic folded beside its table: any life of a table folds to it, any flaw is told."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.cdc.fence import Fence, Snapshot
from pipeline.cdc.forms import CONNECT, Column, Shape
from pipeline.cdc.keys import KeyedTable
from pipeline.cdc.last_states import LastStates
from pipeline.cdc.row_states import RowReader
from pipeline.cdc.told_tables import ToldTable, take
from pipeline.cdc.verdicts import FAIL, PASS, UNKNOWN, TableVerdict, judged
from pipeline.cdc.wire import Decoder, Message

TABLE = KeyedTable("public", "t", (Column("id", "int4", "N"), Column("note", "text", "S")), ("id",))
TOPIC = "shop.public.t"
NOW = 1_000
"""The next transaction when the tables are read; what it and later ones did is not seen."""


@dataclass(frozen=True)
class Record:
    """A record as the driver gives it. `op` is None of a tombstone."""

    id: int
    op: str | None
    note: str | None = None
    xid: int = 0
    lsn: int = 0
    at: int = 0

    def topic(self) -> str:
        return TOPIC

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes:
        return json.dumps({"id": self.id}).encode()

    def value(self) -> bytes | None:
        if self.op is None:
            return None
        source = {"schema": "public", "table": "t", "lsn": self.lsn, "txId": self.xid}
        source["sequence"] = json.dumps([str(self.xid), str(self.lsn)])
        after = None if self.op == "d" else {"id": self.id, "note": self.note}
        return json.dumps({"op": self.op, "source": source, "after": after}).encode()


Rows = dict[int, str]
STEPS = st.lists(st.tuples(st.integers(1, 4), st.sampled_from("abc~")), max_size=14)
"""Of one key each: a new note, or `~` for a deletion."""


def lived(steps: Sequence[tuple[int, str]], *, first: int = 1) -> tuple[list[Record], Rows]:
    """Let a table live; a transaction each, and what Debezium sends of it."""
    sent, rows = list[Record](), Rows()
    for number, (key, note) in enumerate(steps, first):
        if note == "~":
            if rows.pop(key, None) is not None:
                sent += [Record(key, "d", None, number, 10 * number), Record(key, None)]
        else:
            op = "u" if key in rows else "c"
            rows[key] = f"{note}{number}"
            sent.append(Record(key, op, rows[key], number, 10 * number))
    return sent, rows


def judge(
    sent: Sequence[Record],
    rows: Mapping[int, str],
    *,
    before: int | None = None,
    begun: bool = True,
) -> TableVerdict:
    """Fold records in this order, and hold them against the rows; `before` lay there at first."""
    there = len(sent) if before is None else before
    seen = Snapshot(NOW, NOW, frozenset())
    fence = Fence({TOPIC: {0: there}}, seen, 10 * NOW, Snapshot(NOW, NOW + 500, frozenset()))
    with LastStates(memory=1 << 16) as fold:
        decoder = Decoder(lambda _: "")
        table = ToldTable(0, TABLE, TOPIC, decoder, {})
        for at, record in enumerate(sent):
            take(replace(record, at=at), decoder, fold, {str(TABLE): table}, [table], fence)
        table.compare(fold, ((str(key), note, True) for key, note in rows.items()))
        return judged({}, fold, table, begun=begun)


@given(STEPS)
def test_any_life_of_a_table_folds_to_its_rows(steps: list[tuple[int, str]]) -> None:
    sent, rows = lived(steps)
    found = judge(sent, rows)
    assert (found.outcome, found.duplicates) == (PASS, 0)
    assert found.rows == found.keys == len(rows)


@given(STEPS, STEPS, st.integers(0, 30))
def test_what_is_written_meanwhile_makes_no_difference(
    steps: list[tuple[int, str]], later: list[tuple[int, str]], before: int
) -> None:
    """Whatever of it has come, and whenever: the fence lies anywhere behind what was delivered."""
    sent, rows = lived(steps)
    whole, _ = lived([*steps, *later])
    after = [
        replace(record, xid=record.xid + NOW, lsn=record.lsn + 10 * NOW)
        for record in whole[len(sent) :]
    ]
    assert judge([*sent, *after], rows, before=min(before, len(sent))).outcome == PASS


@given(STEPS, st.data())
def test_a_stretch_that_comes_again_is_counted_and_is_no_fault(
    steps: list[tuple[int, str]], data: st.DataObject
) -> None:
    """As after a worker was killed: it begins again at the offset that it stored last."""
    sent, rows = lived(steps)
    begin = data.draw(st.integers(0, len(sent)))
    end = data.draw(st.integers(begin, len(sent)))
    again = sent[begin:end]
    found = judge([*sent[:end], *again, *sent[end:]], rows)
    changes = [record for record in again if record.op is not None]
    assert (found.outcome, found.duplicates) == (PASS, len(changes))


def last_of(sent: Sequence[Record], key: int) -> int:
    """Where the last event of a key lies, tombstones aside."""
    return max(at for at, one in enumerate(sent) if one.id == key and one.op is not None)


@given(STEPS.filter(bool), st.data())
def test_a_last_event_that_is_dropped_is_named_by_what_it_leaves(
    steps: list[tuple[int, str]], data: st.DataObject
) -> None:
    sent, rows = lived(steps)
    assume(sent)
    key = data.draw(st.sampled_from(sorted({record.id for record in sent})))
    at = last_of(sent, key)
    others = [one for one in sent[:at] if one.id == key]
    kept = [one for n, one in enumerate(sent) if n < at or one.id != key]
    found = judge(kept, rows)
    told = (found.without_event, found.ghosts, found.stale, found.out_of_order)
    if sent[at].op == "d":
        assert told == (0, 1, 0, 0)
    elif sent[at].op == "u":
        assert told == (0, 0, 1, 0)
    else:
        assert told == (1, 0, 0, 0), others
    assert found.outcome == FAIL


@given(STEPS.filter(bool), st.data())
def test_an_event_of_which_a_value_was_altered_is_stale(
    steps: list[tuple[int, str]], data: st.DataObject
) -> None:
    sent, rows = lived(steps)
    assume(rows)
    key = data.draw(st.sampled_from(sorted(rows)))
    at = last_of(sent, key)
    sent[at] = replace(sent[at], note="altered")
    found = judge(sent, rows)
    assert (found.outcome, found.stale, found.ghosts, found.without_event) == (FAIL, 1, 0, 0)
    assert found.examples == {"stale": [f"{key} (note)"]}


@given(STEPS.filter(bool), st.data())
def test_two_events_of_a_key_that_changed_places_are_out_of_order(
    steps: list[tuple[int, str]], data: st.DataObject
) -> None:
    sent, rows = lived([(key, note) for key, note in steps if note != "~"])
    often = sorted({one.id for one in sent if sum(o.id == one.id for o in sent) > 1})
    assume(often)
    key = data.draw(st.sampled_from(often))
    places = [at for at, one in enumerate(sent) if one.id == key]
    at = data.draw(st.integers(0, len(places) - 2))
    one, other = places[at], places[at + 1]
    sent[one], sent[other] = sent[other], sent[one]
    found = judge(sent, rows)
    assert (found.outcome, found.out_of_order, found.without_event) == (FAIL, 1, 0)
    assert found.stale == (other == places[-1])


@given(STEPS)
def test_a_tombstone_that_somebody_wrote_leaves_a_row_without_event(
    steps: list[tuple[int, str]],
) -> None:
    sent, rows = lived([*steps, (1, "a")])
    found = judge([*sent, Record(1, None)], rows)
    assert (found.outcome, found.without_event) == (FAIL, 1)


@given(STEPS)
def test_a_row_whose_event_may_lie_before_the_start_of_the_log_is_unknown(
    steps: list[tuple[int, str]],
) -> None:
    sent, rows = lived(steps)
    found = judge(sent, rows | {9: "old"}, begun=False)
    assert (found.outcome, found.without_event) == (UNKNOWN, 1)


class Unreadable(Record):
    """A value that no converter of ours wrote."""

    def value(self) -> bytes | None:
        return b"\0\0\0"


def test_a_value_that_cannot_be_read_is_unknown_and_hides_no_other_key() -> None:
    sent, rows = lived([(1, "a"), (2, "b")])
    for told in (rows, rows | {3: "c"}):
        found = judge([*sent, Unreadable(3, "c")], told)
        assert (found.outcome, found.without_event, found.ghosts) == (UNKNOWN, 0, 0)
        assert "1 records cannot be read by their value" in found.doubts[0]
    assert judge([*sent, Unreadable(3, "c")], rows | {4: "d"}).outcome == FAIL


def test_an_event_of_an_abandoned_history_counts_whatever_its_number() -> None:
    """After a point-in-time recovery without a re-read: what the topic tells is a ghost."""
    sent, rows = lived([(1, "a")])
    ghost = Record(2, "c", "gone", NOW + 100_000, 10 * NOW + 7)
    assert judge([*sent, ghost], rows).ghosts == 1


def test_a_transaction_that_waits_for_a_standby_is_on_either_side() -> None:
    sent, rows = lived([(1, "a")])
    waits = Record(2, "c", "b", NOW + 1, 10 * NOW - 5)
    assert judge([*sent, waits], rows).outcome == PASS
    assert judge([*sent, waits], rows | {2: "b"}).outcome == PASS
    assert judge([*sent, waits], rows | {2: "c"}).stale == 1


def test_xids_are_seen_across_their_wraparound() -> None:
    seen = Snapshot((1 << 32) - 5, (1 << 32) + 5, frozenset({(1 << 32) + 1}))
    assert all(xid in seen for xid in ((1 << 32) - 6, (1 << 32) - 1, 0, 4))
    assert not any(xid in seen for xid in (1, 5, 100))


def test_a_null_that_stands_for_no_number_is_told_as_what_a_mode_does_not_keep() -> None:
    """Debezium has no decimal for NaN, and writes NULL; by another mode a NULL is another value."""
    table = KeyedTable("public", "t", (Column("n", "numeric", "N"),))
    row = Message("", {"n": Shape("bytes", f"{CONNECT}Decimal", 2)}, {"n": None})
    for mode, differing in (("precise", []), ("string", ["n"])):
        told = {"decimal.handling.mode": mode}
        reader = RowReader(table, partial(dict, told))
        state = reader.state(row, None)
        assert list(reader.differing(state, ["NaN"])) == differing
        assert list(reader.differing(state, ["1"])) == ["n"]
        assert bool(reader.lossy) == (mode == "precise")
