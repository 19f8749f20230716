"""Writers keep their pace, rest when they are told to, and do not die in silence."""

from datetime import timedelta

import pytest

from fixtures.workload import TABLES, WorkloadError
from fixtures.workload.transport import shut
from fixtures.workload.writer import Writer
from pipeline.wait import wait_until
from tests.workload.shop import SOON, Shop, active


def test_a_failed_transaction_is_followed_by_a_new_connection(shop: Shop) -> None:
    """What a failed pipeline was to prepare is not there, and its names would be used for ever."""
    with shop.workload() as workload:
        workload.write(acknowledged=1_000)
        workload.pause()
        writers = [one for one in workload._writers if isinstance(one, Writer)]
        before = [writer._connection for writer in writers]
        with shop.connect() as connection:
            connection.execute("DELETE FROM order_lines")
        workload.write(acknowledged=500)
        workload.pause()
        after = [writer._connection for writer in writers]
    told = {operation.error for operation in shop.ledger.read() if operation.error}
    assert any("expected" in error for error in told)
    assert not any("prepared statement" in error for error in told)
    assert any(one is not other for one, other in zip(before, after, strict=True))


def test_the_rate_is_kept(shop: Shop) -> None:
    with shop.workload(rate=800, rows_per_transaction=(1, 10)) as workload:
        workload.write(acknowledged=2400)
        workload.pause()
        samples = [rows for _, rows in workload.tally.samples()][2:-2]
    assert 400 < sum(samples) / len(samples) * 4 < 900


def test_a_writer_that_dies_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    workload = shop.workload()
    workload.start()
    monkeypatch.setattr(shop.ledger, "intend", None)
    with pytest.raises(WorkloadError, match=r"writer w\d died"):
        workload.write(acknowledged=100_000)
    with pytest.raises(WorkloadError, match=r"writer w\d died"):
        workload.stop()


def test_a_writer_that_does_not_rest_is_named(shop: Shop) -> None:
    """A pause without end would look like a drill that hangs, and tell nobody why."""
    with shop.workload(writers=1, answer_within=timedelta(minutes=5)) as workload:
        workload.write(acknowledged=100)
        workload.pause()
        with shop.connect() as locker, locker.transaction():
            everything = ", ".join(TABLES)
            locker.execute(f"LOCK TABLE {everything} IN ACCESS EXCLUSIVE MODE")
            workload.resume()
            waiting = "wait_event = 'relation'"
            wait_until("a wait", lambda: None if active(shop, waiting) else "none", within=SOON)
            with pytest.raises(WorkloadError, match=r"w0 does not rest .* waits for \d"):
                workload.pause(within=timedelta(seconds=1))
        workload.pause()


def test_a_connection_that_closed_by_itself_can_be_broken(shop: Shop) -> None:
    """The watchdog of all writers must not die of it."""
    connection = shop.connect()
    connection.close()
    shut(connection)
