"""The classifier's memory does not grow with the ledger."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.ledger import Change, Ledger, Outcome, Survivor, classify


def _recorded(folder: Path, operations: int) -> Ledger:
    ledger = Ledger(folder)
    for start in range(0, operations, 50):
        number = ledger.number()
        changes = [Change("orders", str(key), f"{number}") for key in range(start, start + 50)]
        ledger.intend(number, "w0", changes)
        ledger.settle(number, Outcome.OK, ack={"xid": number, "lsn": number})
    return ledger


def _peak(folder: Path, operations: int) -> int:
    ledger = _recorded(folder, operations)

    def survivors() -> Iterator[Survivor]:
        for key in range(operations):
            yield Survivor("orders", str(key), f"{key // 50 + 1}")

    tracemalloc.start()
    try:
        found = classify(ledger, {"postgres": survivors()}, bucket_bytes=50_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found.keys, found.joint.rows) == (operations, 0)
    return peak


@pytest.mark.parametrize("operations", [10_000, pytest.param(50_000, marks=pytest.mark.slow)])
def test_four_times_the_operations_take_no_more_memory(tmp_path: Path, operations: int) -> None:
    small = _peak(tmp_path / "small", operations)
    large = _peak(tmp_path / "large", 4 * operations)
    assert large < 1.25 * small, f"{small / 1e6:.1f} MB became {large / 1e6:.1f}"
