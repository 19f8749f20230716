"""The ledger file: what survives whom, and what is refused."""

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fixtures.ledger import Change, Ledger, LedgerError, Outcome, classify
from fixtures.ledger.record import read, torn

WRITE_UNTIL_KILLED = """
import sys
from pathlib import Path
from fixtures.ledger import Change, Ledger, Outcome
ledger = Ledger(Path(sys.argv[1]))
while True:
    number = ledger.number()
    ledger.intend(number, "w0", [Change("orders", str(number), "s")])
    print(number, flush=True)
    ledger.settle(number, Outcome.OK, ack={"xid": number, "lsn": number})
"""


def record(ledger: Ledger, outcome: Outcome | None = Outcome.OK, key: str = "1") -> int:
    number = ledger.number()
    ledger.intend(number, "w0", [Change("orders", key, f"{number}")])
    if outcome is not None:
        ledger.settle(number, outcome, ack={"xid": 700 + number, "lsn": 16})
    return number


def test_what_was_recorded_is_read_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    record(ledger)
    (operation,) = ledger.read()
    assert operation.changes == (Change("orders", "1", "1"),)
    assert (operation.outcome, operation.writer, operation.system) == ("ok", "w0", "postgres")
    assert operation.ack == {"xid": 701, "lsn": 16}
    assert operation.told is not None
    assert operation.told >= operation.sent


def test_an_intent_without_an_outcome_is_unknown(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    record(ledger, outcome=None)
    assert [operation.outcome for operation in ledger.read()] == [Outcome.INFO]


def test_a_torn_last_line_is_passed_over_and_told(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    record(ledger)
    with ledger.path.open("ab") as stream:
        stream.write(b'{"op":2,"writer":"w')
    assert torn(ledger.path)
    assert len(list(ledger.read())) == 1
    assert classify(ledger, {}).torn


def test_a_damaged_line_in_the_middle_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    record(ledger)
    record(ledger)
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join([lines[0], lines[1][:9] + b"\n", *lines[2:]]))
    with pytest.raises(LedgerError, match="line 2: not a record"):
        list(ledger.read())


def test_an_outcome_without_an_intent_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.settle(9, Outcome.OK)
    with pytest.raises(LedgerError, match="operation 9 has an outcome and no intent"):
        list(ledger.read())


def test_a_run_never_continues_the_ledger_of_another(tmp_path: Path) -> None:
    Ledger(tmp_path).close()
    with pytest.raises(LedgerError, match="a run has a ledger of its own"):
        Ledger(tmp_path)


def test_every_intent_survives_kill_9(tmp_path: Path) -> None:
    """What the process had announced after recording it is in the file, none half written."""
    command = [sys.executable, "-c", WRITE_UNTIL_KILLED, str(tmp_path)]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        announced = [int(process.stdout.readline()) for _ in range(500)]
        process.send_signal(signal.SIGKILL)
        announced += [int(line) for line in process.stdout if line.endswith("\n")]
    ledger = tmp_path / "ledger.jsonl"
    assert not torn(ledger)
    assert set(announced) <= {operation.number for operation in read(ledger)}


@pytest.mark.parametrize("sync", [False, True])
def test_writers_do_not_tear_each_others_lines(tmp_path: Path, *, sync: bool) -> None:
    ledger = Ledger(tmp_path, sync=sync)
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: record(ledger), range(400)))
    assert sorted(operation.number for operation in ledger.read()) == sorted(numbers)


def test_a_synced_ledger_is_synced_before_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    ledger = Ledger(tmp_path, sync=True)
    monkeypatch.setattr("os.fdatasync", lambda _: synced.append(ledger.path.stat().st_size))
    record(ledger)
    assert synced[-1] == ledger.path.stat().st_size


def test_operations_of_another_system_are_not_judged(tmp_path: Path) -> None:
    """The same ledger holds produces; partition and offset are their acknowledgement."""
    ledger = Ledger(tmp_path)
    number = ledger.number()
    ledger.intend(number, "p0", [Change("clicks", "0/17", "s")], system="kafka")
    ledger.settle(number, Outcome.OK, ack={"partition": 0, "offset": 17})
    assert classify(ledger, {"postgres": []}).keys == 0
    assert classify(ledger, {"topic": []}, system="kafka").joint.rows == 1


def test_the_classification_is_json(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    record(ledger)
    told = json.loads(json.dumps(classify(ledger, {"postgres": []}).as_json()))
    assert told["systems"]["postgres"]["keys"]["lost"] == 1
    assert told["damaged"]["lost"][0]["ack"] == {"xid": 701, "lsn": 16}
