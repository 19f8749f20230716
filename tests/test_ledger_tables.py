"""A target that applied to one table excuses nothing in another."""

from pathlib import Path

import pytest

from fixtures.ledger.classify import Survivor, classify
from fixtures.ledger.record import Change, Ledger, Outcome


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Each operation writes both tables; the first before the target, the second beyond it."""
    ledger = Ledger(tmp_path / "ledger")
    for xid in (10, 20):
        number = ledger.number()
        changes = [Change("taken_back", "1", f"state {xid}"), Change("other", "1", f"state {xid}")]
        ledger.intend(number, "writer", changes)
        ledger.settle(number, Outcome.OK, ack={"xid": xid})
    ledger.close()
    return ledger


@pytest.mark.parametrize(
    ("other", "lost"), [("state 20", 0), ("state 10", 1)], ids=["kept", "taken back too"]
)
def test_only_writes_to_the_table_are_discarded(ledger: Ledger, other: str, lost: int) -> None:
    found = classify(
        ledger,
        {
            "postgres": [
                Survivor("taken_back", "1", "state 10"),
                Survivor("other", "1", other),
            ]
        },
        fault=0.0,
        fenced=float("inf"),
        beyond=lambda operation: operation.ack["xid"] > 10,
        only=("taken_back",),
    )
    assert found.writes == {"ok": 3, "discarded": 1}
    assert found.joint.rows == lost


def test_what_nothing_tells_of_another_table_is_loss(ledger: Ledger) -> None:
    found = classify(
        ledger,
        {"postgres": [Survivor("taken_back", "1", "state 10")]},
        fault=0.0,
        fenced=float("inf"),
        beyond=lambda _: None,
        only=("taken_back",),
    )
    assert found.writes == {"ok": 2, "indeterminate": 2}
    assert found.joint.rows == 2
