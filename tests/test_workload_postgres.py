"""Clients, ledger and classifier against a real PostgreSQL and its outages."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, LiteralString, cast

import psycopg
import pytest
from pydantic import SecretStr

from fixtures import cache
from fixtures.incident import IncidentLog
from fixtures.ledger import Classification, Found, Ledger, classify
from fixtures.ledger.decision import Beyond
from fixtures.ledger.survivors import postgres_survivors
from fixtures.observer import Observer
from fixtures.service import Service
from fixtures.stacks.artifacts import installed
from fixtures.stacks.ports import Ports
from fixtures.stacks.postgres import PostgresServer
from fixtures.stacks.runs import Run
from fixtures.workload import (
    TABLES,
    Workload,
    WorkloadError,
    create_shop,
    publication_sql,
    send_probe,
)
from fixtures.workload.transport import shut
from fixtures.workload.writer import Writer
from pipeline.config import PostgresConfig
from pipeline.postgres.tools import Tools
from pipeline.wait import wait_until

pytestmark = pytest.mark.stack
PASSWORD = "not a secret"  # noqa: S105 - of a server that lives for one test
SOON = timedelta(seconds=30)
PROBES = "query LIKE 'INSERT INTO drill_probe%'"


@dataclass(frozen=True)
class Shop:
    """A server of this test's own, with an empty shop."""

    server: PostgresServer
    config: PostgresConfig
    ledger: Ledger

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(**self.config.conninfo(), autocommit=True)

    def workload(self, **settings: Any) -> Workload:  # noqa: ANN401 - as Workload takes them
        return Workload(self.config.conninfo(), self.ledger, seed=1, **settings)

    def classify(
        self,
        fault: float | None = None,
        fenced: float | None = None,
        beyond: Beyond | None = None,
    ) -> Classification:
        with self.connect() as connection:
            survivors = postgres_survivors(connection)
            return classify(
                self.ledger, {"postgres": survivors}, fault=fault, fenced=fenced, beyond=beyond
            )

    @contextmanager
    def copied(self) -> Iterator[Callable[[], None]]:
        """Copy the stopped server's folder; yields what puts the copy back."""
        copy = self.server.folder.with_name("copy")

        def put_back() -> None:
            shutil.rmtree(self.server.folder)
            shutil.copytree(copy, self.server.folder)
            Tools.of(self.config).own(self.server.folder)

        shutil.copytree(self.server.folder, copy)
        yield put_back


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    run, ports = Run.begin(cache.folder() / "runs"), Ports()
    try:
        password_file = run.folder / "password"
        password_file.write_text(PASSWORD)
        password_file.chmod(0o644)
        config = PostgresConfig(
            port=ports.take(),
            password=SecretStr(PASSWORD),
            bin=installed().postgres / "bin",
            data=run.folder / "postgres",
        )
        Tools.of(config).own(run.folder)
        server = PostgresServer(
            config=config,
            log=run.folder / "postgres.log",
            password_file=password_file,
            settings={},
        )
        server.start()
        shop = Shop(server, config, Ledger(tmp_path / "ledger"))
        with shop.connect() as connection:
            create_shop(connection)
        yield shop
    finally:
        run.end()
        ports.close()


def assert_nothing_lost(found: Classification) -> None:
    damage = {name: count for name, count in found.joint.keys.items() if count and name != "sound"}
    assert damage == {}, found.damaged
    assert found.joint.keys[Found.SOUND] > 0


def test_all_that_was_acknowledged_is_there(shop: Shop) -> None:
    """Every table has rows, all verbs were used, large bodies are stored out of line."""
    with shop.workload() as workload:
        workload.write(acknowledged=4000)
        workload.pause()
    assert_nothing_lost(shop.classify())
    with shop.connect() as connection:
        count = connection.execute(
            " UNION ALL ".join(f"SELECT count(*) FROM {name}" for name in TABLES)
        ).fetchall()
        assert all(rows > 0 for (rows,) in count)
        partitions = connection.execute("SELECT count(DISTINCT tableoid) FROM events").fetchone()
        assert partitions == (4,)
        toast = connection.execute(
            "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE relname = 'documents'"
        ).fetchone()
        assert toast is not None
        assert toast[0] > 0
        deleted, updated = _verbs(connection)
    assert deleted > 0
    assert updated > 0


def _verbs(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    connection.execute("SELECT pg_stat_force_next_flush()")
    found = connection.execute(
        "SELECT sum(n_tup_del), sum(n_tup_upd) FROM pg_stat_user_tables"
    ).fetchone()
    assert found is not None
    return int(found[0]), int(found[1])


def test_the_publication_tells_partitions_as_their_root(shop: Shop) -> None:
    with shop.connect() as connection:
        connection.execute(publication_sql("all of it"))
        found = connection.execute("SELECT tablename FROM pg_publication_tables")
        tables = {name for (name,) in found}
    assert tables == {*TABLES, "drill_probe"}


def test_nothing_is_lost_when_the_server_is_killed(shop: Shop) -> None:
    """Clients see the harm, go on by themselves, and every write has a truthful outcome."""
    with shop.workload() as workload:
        workload.write(acknowledged=1000)
        killed = time.monotonic()
        shop.server.kill()
        wait_until(
            "harm seen",
            lambda: None if workload.first_error_after(killed) else "none",
            within=SOON,
        )
        restarted = time.monotonic()
        shop.server.start()
        workload.write(acknowledged=1000)
        workload.pause()
    seen = workload.first_ack_after(restarted)
    assert seen is not None
    assert seen.rows > 0
    found = shop.classify()
    assert_nothing_lost(found)
    assert found.operations["fail"] + found.operations["info"] > 0


def test_a_frozen_server_leaves_outcomes_unknown_and_clients_alive(shop: Shop) -> None:
    with shop.workload(answer_within=timedelta(seconds=1)) as workload:
        workload.write(acknowledged=500)
        frozen = time.monotonic()
        shop.server.freeze()
        try:
            wait_until(
                "cut off",
                lambda: None if workload.first_error_after(frozen) else "waiting",
                within=SOON,
            )
        finally:
            shop.server.thaw()
        workload.write(acknowledged=500)
        workload.pause()
    assert_nothing_lost(shop.classify())


def test_damage_behind_the_clients_back_is_found_by_class(shop: Shop) -> None:
    with shop.workload() as workload:
        workload.write(acknowledged=3000)
        workload.pause()
        with shop.connect() as connection:
            gone = connection.execute("DELETE FROM events WHERE id % 7 = 0").rowcount
            changed = connection.execute(
                "UPDATE documents SET title = title || '!' WHERE id % 5 = 0"
            ).rowcount
            added = connection.execute(
                "INSERT INTO events (name, happened, rev) VALUES ('stranger', now(), 1)"
            ).rowcount
    assert min(gone, changed) > 0
    keys = shop.classify().systems["postgres"].keys
    assert (keys[Found.LOST], keys[Found.CORRUPT], keys[Found.PHANTOM]) == (gone, changed, added)


def test_a_table_that_is_gone_has_lost_its_rows(shop: Shop) -> None:
    with shop.workload() as workload:
        workload.write(acknowledged=1000)
        workload.pause()
        with shop.connect() as connection:
            row = connection.execute("SELECT count(*) FROM events").fetchone()
            connection.execute("DROP TABLE events")
        found = shop.classify()
    assert row == (found.joint.keys[Found.LOST],)


def test_clients_go_on_after_a_recovery_that_discarded_rows(shop: Shop) -> None:
    """Their rows vanished or went back: they are told so, forget them, and nothing is mixed up."""
    with shop.workload() as workload:
        workload.write(acknowledged=1500)
        workload.pause()
        shop.server.stop()
        with shop.copied() as put_back:
            shop.server.start()
            fault, last_kept = time.monotonic(), shop.ledger.last
            workload.write(acknowledged=1500)
            shop.server.stop()
            fenced = time.monotonic()
            put_back()
        shop.server.start()
        workload.write(acknowledged=1500)
        workload.pause()
    lost = shop.classify(fault, fenced)
    assert lost.joint.rows > 0
    decided = shop.classify(fault, fenced, lambda operation: operation.number > last_kept)
    assert_nothing_lost(decided)
    assert decided.writes["discarded"] >= 1500
    told = {operation.error for operation in shop.ledger.read() if operation.error}
    assert any("expected" in error and "found" in error for error in told)


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


def test_a_probe_carries_its_time(shop: Shop) -> None:
    sent = send_probe(shop.config.conninfo())
    with shop.connect() as connection:
        assert connection.execute("SELECT id FROM drill_probe").fetchone() == (round(sent * 1e9),)


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


@pytest.fixture
def observer(shop: Shop) -> Iterator[Observer]:
    """Its probes take a while: whoever holds them comes while one is under way."""
    with shop.connect() as connection:
        connection.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_sleep(0.2); RETURN new; END'"
        )
        connection.execute(
            "CREATE TRIGGER slow BEFORE INSERT ON drill_probe FOR EACH ROW EXECUTE FUNCTION slow()"
        )
    service = SimpleNamespace(connect=shop.connect, ledger=shop.ledger)
    observer = Observer(cast("Service", service), IncidentLog())
    observer.start()
    wait_until("a probe under way", lambda: None if active(shop, PROBES) else "none", within=SOON)
    yield observer
    observer.stop()


def active(shop: Shop, which: LiteralString) -> int:
    """How many sessions are at work, of those."""
    with shop.connect() as connection:
        found = connection.execute(
            f"SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND {which}"
        ).fetchone()
    return int(found[0]) if found else 0


def test_probes_that_are_held_have_ended(shop: Shop, observer: Observer) -> None:
    """Never closed by another thread: the next connection would get the memory of this one."""
    observer.hold_probes()
    assert active(shop, PROBES) == 0
    assert observer.trouble == []


def test_probes_are_held_though_the_server_is_frozen(shop: Shop, observer: Observer) -> None:
    shop.server.freeze()
    try:
        observer.hold_probes()
    finally:
        shop.server.thaw()
    assert observer.trouble == []
