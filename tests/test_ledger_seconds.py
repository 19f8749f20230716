"""RPA in seconds, discards and indeterminate writes, on a clock that ticks once a record."""

from pathlib import Path

import pytest

from fixtures.ledger import Damaged, Found, Outcome, Survivor, beyond_target, classify
from tests.ledger_cases import op, rows, write

HISTORY = [op("a"), op("b"), op("c"), op("d"), op("e")]
"""Operation n is told at 2n + 1: 3, 5, 7, 9, 11; its xid is n and its LSN at most 10n."""


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return write(tmp_path, HISTORY)


def held(*keys: str) -> list[Survivor]:
    return rows({key: f"{'abcde'.index(key) + 1}-{key}" for key in keys})


def test_seconds_go_back_to_the_oldest_lost_write_and_to_the_prefix(ledger: Path) -> None:
    """The oldest lost is c (told at 7); the prefix ends with b (5); the newest is e (11)."""
    loss = classify(ledger, {"postgres": held("a", "b", "d")}).systems["postgres"]
    assert (loss.rows, loss.seconds_to_oldest, loss.seconds_to_prefix) == (2, 4.0, 6.0)


def test_seconds_go_back_from_a_fault_that_is_later_than_the_newest_write(ledger: Path) -> None:
    loss = classify(ledger, {"postgres": held("a", "b", "c", "d")}, fault=20.0).joint
    assert (loss.rows, loss.seconds_to_oldest, loss.seconds_to_prefix) == (1, 9.0, 11.0)


def test_writes_behind_the_fence_do_not_stretch_the_seconds(ledger: Path) -> None:
    loss = classify(ledger, {"postgres": held("a", "c", "d", "e")}, fault=6.0, fenced=8.0).joint
    assert loss.seconds_to_oldest == 2.0  # from c, told at 7, to b, told at 5


def test_an_empty_prefix_reaches_back_to_the_start_of_the_ledger(ledger: Path) -> None:
    loss = classify(ledger, {"postgres": []}).joint
    assert (loss.rows, loss.seconds_to_oldest, loss.seconds_to_prefix) == (5, 8.0, 9.0)


def test_the_density_is_acknowledged_rows_by_time(ledger: Path) -> None:
    assert classify(ledger, {"postgres": []}).density == pytest.approx(5 / 9)


def test_a_target_discards_only_what_the_archive_holds_behind_it(ledger: Path) -> None:
    """The fault is after b; the target after c; d is archived, the WAL of e is gone."""
    beyond = beyond_target({1: 10, 2: 20, 3: 30, 4: 40}, target=30)
    found = classify(
        ledger, {"postgres": held("a", "b", "c")}, fault=6.0, fenced=20.0, beyond=beyond
    )
    assert found.writes == {"ok": 3, "discarded": 1, "indeterminate": 1}
    loss = found.systems["postgres"]
    assert (loss.rows, loss.indeterminate, loss.oldest_missing) == (1, 1, 11.0)
    assert [dot.fate for dot in found.dots] == [*["survived"] * 3, "discarded", "indeterminate"]


def test_what_lies_between_the_target_and_the_fault_is_loss(ledger: Path) -> None:
    beyond = beyond_target({n: 10 * n for n in range(1, 6)}, target=20)
    found = classify(ledger, {"postgres": held("a", "b")}, fault=8.0, fenced=20.0, beyond=beyond)
    assert keys(found.damaged["lost"]) == {"c"}
    assert found.writes["discarded"] == 2


def test_an_upper_bound_before_the_target_needs_no_wal(ledger: Path) -> None:
    beyond = beyond_target({}, target=50)
    found = classify(ledger, {"postgres": []}, fault=1.0, fenced=20.0, beyond=beyond)
    assert found.writes == {"ok": 5}


def test_writes_of_the_recovered_server_are_never_discarded(tmp_path: Path) -> None:
    """Its timeline gives xids again: the second write is xid 2 behind the fence, and counts."""
    ledger = write(tmp_path, [op("a"), op("a"), op("b"), op("a")])
    beyond = beyond_target({2: 20, 3: 30, 4: 40}, target=10)
    found = classify(ledger, {"postgres": rows({"a": "4-a"})}, fault=4.0, fenced=7.5, beyond=beyond)
    assert found.writes == {"ok": 2, "discarded": 2}
    assert found.joint.rows == 0


def test_a_discarded_write_that_is_there_is_told_apart(tmp_path: Path) -> None:
    """The topics still hold it: an event without its row, which is no loss and not nothing."""
    ledger = write(tmp_path, [op("a"), op("a")])
    beyond = beyond_target({2: 20}, target=10)
    systems = {"postgres": rows({"a": "1-a"}), "topics": rows({"a": "2-a"})}
    found = classify(ledger, systems, fault=4.0, fenced=9.0, beyond=beyond)
    assert found.systems["topics"].count(Found.DISCARDED) == 1
    assert (found.joint.rows, found.disagreeing) == (0, 1)


def test_a_decision_without_fault_and_fence_is_refused(ledger: Path) -> None:
    with pytest.raises(ValueError, match="name both"):
        classify(ledger, {"postgres": []}, beyond=lambda _: True)


def test_unknown_outcomes_found_and_not_found_are_counted_apart(tmp_path: Path) -> None:
    ledger = write(tmp_path, [op("ab", outcome=Outcome.INFO)])
    found = classify(ledger, {"postgres": rows({"a": "1-a"}), "topics": []})
    postgres, topics = found.systems["postgres"], found.systems["topics"]
    assert (postgres.info_found, postgres.info_missing) == (1, 1)
    assert (topics.info_found, topics.info_missing) == (0, 2)
    assert (found.joint.rows, found.disagreeing) == (0, 1)


def keys(damaged: list[Damaged]) -> set[str]:
    return {one.key for one in damaged}
