"""Where a slot can begin is read from the WAL, and what cannot be decoded is refused there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import TargetUnreachable
from pipeline.postgres.history.waldump import Record
from pipeline.postgres.redecode.stretch import (
    Running,
    TooYoung,
    _beginning,
    _known_from,
    _precedes,
    _Seen,
)
from pipeline.postgres.wal.lsn import SEGMENT_SIZE, Lsn


def running(*told: tuple[int, int]) -> list[Running]:
    """Records by their oldest and next transaction, at 100, 200, …; each is 50 long."""
    return [
        Running(Lsn(100 * n), Lsn(100 * n + 50), oldest, after)
        for n, (oldest, after) in enumerate(told, start=1)
    ]


def test_a_slot_begins_at_the_last_moment_at_which_nothing_ran() -> None:
    records = running((10, 10), (20, 20), (25, 30), (40, 40))
    assert _beginning(records, Lsn(399), Lsn(0)) == (Lsn(200), Lsn(250))
    assert _beginning(records, Lsn(450), Lsn(0)) == (Lsn(400), Lsn(450))


def test_on_a_busy_server_a_slot_begins_when_all_that_ran_has_ended_three_times() -> None:
    busy = running((5, 10), (9, 12), (10, 20), (19, 29), (20, 33), (30, 41), (34, 50))
    assert _known_from(busy) == busy[6].end
    assert _beginning(busy, Lsn(750), Lsn(0)) == (busy[0].lsn, busy[6].end)
    with pytest.raises(TooYoung, match="6 records of running transactions lie between"):
        _beginning(busy, Lsn(700), Lsn(0))


@given(st.integers(0, (1 << 32) - 1), st.integers(1, (1 << 31) - 1))
def test_transactions_are_ordered_on_a_circle(xid: int, further: int) -> None:
    other = (xid + further) & 0xFFFFFFFF
    assert _precedes(xid, other)
    assert not _precedes(other, xid)
    assert not _precedes(xid, xid)


def record(at: int, op: bytes, rest: bytes) -> Record:
    return Record(b"XLOG", b"54", b"0", str(Lsn(at)).encode(), op, rest)


def restarted(at: int, level: bytes, connections: int) -> Record:
    rest = b"max_connections=%d max_prepared_xacts=2 wal_level=%s wal_log_hints=off"
    return record(at, b"PARAMETER_CHANGE", rest % (connections, level))


def idle(at: int) -> Record:
    return record(at, b"RUNNING_XACTS", b"nextXid 9 latestCompletedXid 8 oldestRunningXid 9")


def taken(*records: Record, level: str = "logical") -> _Seen:
    seen = _Seen(start=Lsn(1000), consistent_at=Lsn(104), level=level)
    for one in records:
        seen.take(one, SEGMENT_SIZE)
    return seen


def test_no_slot_begins_before_the_backup_is_consistent_or_in_wal_of_another_level() -> None:
    assert [one.lsn for one in taken(idle(96), idle(104)).records] == [104]
    assert taken(idle(104), level="replica").records == []
    between = restarted(200, b"replica", 100), idle(208), restarted(304, b"logical", 100)
    assert [one.lsn for one in taken(idle(104), *between, idle(400)).records] == [400]


def test_a_stretch_in_wal_of_another_level_is_refused() -> None:
    with pytest.raises(TargetUnreachable, match="at 0/3E8 the server was restarted with wal_level"):
        taken(idle(104), restarted(1000, b"minimal", 100))


def test_a_side_server_gets_as_much_as_its_primary_ever_had() -> None:
    seen = taken(restarted(200, b"logical", 300), restarted(304, b"logical", 50))
    assert seen.settings == {"max_connections": 300, "max_prepared_transactions": 2}
