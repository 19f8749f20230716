"""What `pipeline find` sees in the WAL of a real server, and how far it says that it saw."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fixtures.stacks.artifacts import installed
from fixtures.stacks.ports import Ports
from pipeline.postgres.find import Findings, find
from pipeline.postgres.inventory import table_inventory
from pipeline.postgres.lsn import Lsn, segment_name
from pipeline.postgres.segments import reading_view
from pipeline.postgres.server import LocalServer
from pipeline.postgres.tools import Tools
from pipeline.postgres.waldump import Reading, commit_order, endings, readable_end
from pipeline.wait import wait_until

SOON = timedelta(seconds=30)
TRANSACTIONS = ("Transaction",)


class Source:
    """A server that archives into its own repository."""

    def __init__(self, root: Path, port: int) -> None:
        self.tools = Tools(installed().postgres / "bin")
        self.repository = root / "repo"
        self.archive = self.repository / "wal"
        self.archive.mkdir(parents=True)
        self.server = LocalServer(root / "data", self.tools, root / "log")
        self._port = port
        self.tools.own(root)

    def initialise(self) -> None:
        options = (
            "--no-sync",
            "--auth=trust",
            "--username=postgres",
            "--wal-segsize=1",
            "--encoding=UTF8",
        )
        self.tools.run("initdb", *options, "-D", self.server.data)

    def start(self) -> None:
        settings = {
            "port": str(self._port),
            "unix_socket_directories": "",
            "wal_level": "logical",
            "fsync": "off",
            "autovacuum": "off",
            "max_prepared_transactions": "2",
            "dynamic_shared_memory_type": "mmap",
            "archive_mode": "on",
            "archive_command": f"test ! -f {self.archive}/%f && cp %p {self.archive}/%f",
        }
        self.server.start(settings)
        wait_until("connection", self._unready, within=SOON)

    def _unready(self) -> str | None:
        try:
            self.connect().close()
        except psycopg.OperationalError as error:
            return str(error)
        return None

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(host="127.0.0.1", port=self._port, user="postgres", autocommit=True)

    def run(self, *statements: str) -> Any:  # noqa: ANN401 - whatever the last one answers
        with self.connect() as connection:
            for statement in statements:
                answer = connection.execute(statement.encode())
            return answer.fetchone() if answer.description else None

    def transaction(self, *statements: str) -> int:
        """Run as one transaction and return its id."""
        with self.connect() as connection, connection.transaction():
            for statement in statements:
                connection.execute(statement.encode())
            row = connection.execute("select pg_current_xact_id()::text").fetchone()
        assert row is not None
        return int(row[0])

    def facts(self) -> dict[str, Any]:
        """What the manifest of a base backup taken now would say."""
        (lsn,) = self.run("select pg_current_wal_insert_lsn()::text")
        (database,) = self.run("select oid::bigint from pg_database where datname = 'postgres'")
        with self.connect() as connection:
            tables = table_inventory(connection, exact=True)
        timeline = int(
            self.run("select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)")[0], 16
        )
        return {
            "timeline": timeline,
            "start_lsn": lsn,
            "database_oid": database,
            "tables": tables,
        }

    def archive_all(self) -> str:
        """Switch segments and return the name of the last archived one."""
        # an empty segment is not switched, and never archived
        message = "select pg_logical_emit_message(false, 'test', '')"
        (name,) = self.run(message, "select pg_walfile_name(pg_switch_wal())")

        def archived() -> str | None:
            return None if (self.archive / name).exists() else f"{name} is not archived"

        wait_until("archiving", archived, within=SOON)
        return str(name)

    def find(self, facts: dict[str, Any], table: str, **options: Any) -> Findings:  # noqa: ANN401
        self.archive_all()
        return find(self.repository, self.tools, backup_facts=facts, table=table, **options)


@contextmanager
def running_source() -> Iterator[Source]:
    """A fresh server, readable by the user that it runs as."""
    ports = Ports()
    with tempfile.TemporaryDirectory(prefix="find-") as folder:
        source = Source(Path(folder), ports.take())
        source.initialise()
        source.start()
        try:
            yield source
        finally:
            source.server.stop()
            ports.close()


@pytest.fixture(scope="module")
def source() -> Iterator[Source]:
    with running_source() as running:
        yield running


@pytest.fixture
def orders(source: Source) -> Iterator[dict[str, Any]]:
    """A table of 1,000 rows with TOAST and index, and the facts of a backup taken after it."""
    source.run(
        "create table orders (id bigint generated always as identity primary key, item text)",
        "insert into orders (item) select 'item ' || n from generate_series(1, 1000) n",
    )
    yield source.facts()
    source.run("drop table if exists orders, archived")


def told(findings: Findings) -> list[tuple[str, int | None, int]]:
    return [(suspect.what, suspect.rows, suspect.xid) for suspect in findings.suspects]


def test_a_dropped_table_is_found_with_its_rows(source: Source, orders: dict[str, Any]) -> None:
    started = datetime.now(UTC)
    xid = source.transaction("drop table orders")
    findings = source.find(orders, "orders")
    assert told(findings) == [("drop", 1000, xid)]
    (suspect,) = findings.suspects
    assert suspect.before == f"before:xid:{xid}"
    assert suspect.tables == ("public.orders",)
    assert started <= suspect.time <= datetime.now(UTC)
    assert findings.end.complete
    assert not findings.unseen


def test_a_truncate_is_found_and_the_table_is_followed_into_its_new_file(
    source: Source, orders: dict[str, Any]
) -> None:
    emptied = source.transaction("truncate orders")
    refilled = source.transaction(
        "insert into orders (item) select 'new' from generate_series(1, 300)"
    )
    deleted = source.transaction("delete from orders where id % 2 = 0")
    assert told(source.find(orders, "orders")) == [
        ("truncate", 1000, emptied),
        ("insert", 300, refilled),
        ("delete", 150, deleted),
    ]


def test_delete_and_update_without_where_are_found(source: Source, orders: dict[str, Any]) -> None:
    updated = source.transaction("update orders set item = 'oops'")
    deleted = source.transaction("delete from orders")
    assert told(source.find(orders, "public.orders")) == [
        ("update", 1000, updated),
        ("delete", 1000, deleted),
    ]


@pytest.mark.parametrize(
    "rewrite",
    [
        "vacuum full orders",
        "cluster orders using orders_pkey",
        "alter table orders alter item type varchar(90)",
        "alter table orders add price int default (random() * 9)::int",
    ],
)
def test_a_rewritten_table_is_followed(
    source: Source, orders: dict[str, Any], rewrite: str
) -> None:
    source.run(rewrite)
    deleted = source.transaction("delete from orders where id <= 600")
    rewritten, *others = told(source.find(orders, "orders"))
    assert rewritten[:2] == ("rewrite", 1000)
    assert others == [("delete", 600, deleted)]


def test_several_tables_rewritten_or_truncated_at_once_are_told_apart(
    source: Source, orders: dict[str, Any]
) -> None:
    assert orders["tables"]
    source.run("create table archived (like orders including all)")
    facts = source.facts()
    truncated = source.transaction("truncate archived, orders")
    filled = source.transaction(
        "insert into orders (item) select 'new' from generate_series(1, 400)",
        "insert into archived (item) select 'old' from generate_series(1, 500)",
    )
    source.transaction(
        "create table between (id int primary key, words text)",
        "alter table orders alter item type varchar(90)",
        "alter table archived alter item type varchar(90)",
        "drop table between",
    )
    deleted = source.transaction("delete from orders", "delete from archived where id <= 200")
    found = told(source.find(facts, "orders"))
    assert [found[0], found[1], found[3]] == [
        ("truncate", 1000, truncated),
        ("insert", 400, filled),
        ("delete", 400, deleted),
    ]
    assert told(source.find(facts, "archived"))[-1] == ("delete", 200, deleted)


def test_normal_traffic_vacuum_and_what_was_rolled_back_are_not_listed(
    source: Source, orders: dict[str, Any]
) -> None:
    for item in range(30):
        source.transaction(f"update orders set item = 'x' where id = {item}")
    source.run(
        "insert into orders (item) select 'few' from generate_series(1, 100)",
        "begin; truncate orders; rollback",
        "begin; delete from orders; rollback",
        "begin; savepoint s; drop table orders; rollback to s; commit",
        "delete from orders where id > 1000",
        "vacuum orders",
        "reindex table orders",
        "create index on orders (item)",
    )
    assert told(source.find(orders, "orders")) == []


def test_the_threshold_can_be_chosen(source: Source, orders: dict[str, Any]) -> None:
    xid = source.transaction("delete from orders where id <= 7")
    assert told(source.find(orders, "orders")) == []
    assert told(source.find(orders, "orders", at_least=7)) == [("delete", 7, xid)]


def test_subtransactions_and_prepared_ones_count_for_their_transaction(
    source: Source, orders: dict[str, Any]
) -> None:
    whole = source.transaction(
        "delete from orders where id <= 80",
        "savepoint a",
        "delete from orders where id <= 160",
        "release a",
        "savepoint b",
        "delete from orders",
        "rollback to b",
    )
    source.run("begin; delete from orders where id <= 460; prepare transaction 'p'")
    source.run("commit prepared 'p'")
    first, second = told(source.find(orders, "orders"))
    assert first == ("delete", 160, whole)
    assert second[:2] == ("delete", 300)


def test_a_partitioned_table_is_judged_over_its_partitions(source: Source) -> None:
    source.run(
        "create table events (id int, day int) partition by list (day)",
        "create table events_1 partition of events for values in (1)",
        "create table events_2 partition of events for values in (2)",
        "insert into events select n, 1 + n % 2 from generate_series(1, 400) n",
    )
    facts = source.facts()
    deleted = source.transaction("delete from events where id <= 150")
    emptied = source.transaction("truncate events_1")
    source.run("create table events_3 partition of events for values in (3)")
    source.run("insert into events select n, 3 from generate_series(1, 500) n")
    late = source.transaction("drop table events_3")
    gone = source.transaction("drop table events")
    findings = source.find(facts, "events")
    drastic = [suspect for suspect in findings.suspects if suspect.what not in {"alter", "insert"}]
    assert [(suspect.what, suspect.xid) for suspect in drastic] == [
        ("delete", deleted),
        ("truncate", emptied),
        ("drop", late),
        ("drop", gone),
    ]
    assert drastic[0].rows == 150
    assert "made after the backup" in drastic[2].tables[0]
    assert {"public.events", "public.events_1", "public.events_2"} <= set(drastic[3].tables)
    assert "known by number only" in findings.unseen[0]


def test_a_dropped_column_is_told_as_a_changed_definition(
    source: Source, orders: dict[str, Any]
) -> None:
    xid = source.transaction("alter table orders drop column item")
    assert told(source.find(orders, "orders")) == [("alter", None, xid)]


def test_an_unknown_table_is_said_and_later_ones_are_watched(
    source: Source, orders: dict[str, Any]
) -> None:
    source.run(
        "create table archived as select * from orders",
    )
    xid = source.transaction("drop table archived")
    findings = source.find(orders, "archived")
    assert "not in the inventory" in findings.unseen[0]
    assert told(findings)[-1] == ("drop", 1000, xid)


def test_a_period_can_be_chosen(source: Source, orders: dict[str, Any]) -> None:
    source.transaction("truncate orders")
    between = datetime.now(UTC)
    xid = source.transaction("drop table orders")
    found = source.find(orders, "orders", since=between)
    assert [suspect.xid for suspect in found.suspects] == [xid]
    assert [s.what for s in source.find(orders, "orders", until=between).suspects] == ["truncate"]


def test_a_missing_segment_is_reported_and_nothing_behind_it_is_invented(
    source: Source, orders: dict[str, Any], tmp_path: Path
) -> None:
    source.transaction("truncate orders")
    source.archive_all()
    source.run("insert into orders (item) values ('x')")
    missing = source.archive_all()
    source.run("drop table orders")
    source.archive_all()
    damaged = _copy_of(source, tmp_path)
    (damaged / "wal" / missing).unlink()
    findings = find(damaged, source.tools, backup_facts=orders, table="orders")
    assert [suspect.what for suspect in findings.suspects] == ["truncate"]
    assert not findings.end.complete
    assert f"segment {missing} is missing" in findings.unseen[0]


def test_a_damaged_record_is_reported_where_it_lies(
    source: Source, orders: dict[str, Any], tmp_path: Path
) -> None:
    start = Lsn.parse(orders["start_lsn"])
    source.run("update orders set item = 'y'")
    name = source.archive_all()
    source.run("insert into orders (item) values ('z')")
    source.archive_all()
    damaged = _copy_of(source, tmp_path)
    segment = damaged / "wal" / name
    content = bytearray(segment.read_bytes())
    content[(start % len(content)) + 30_000] ^= 0xFF
    segment.write_bytes(content)
    end = readable_end(damaged, source.tools, timeline=orders["timeline"], start=start)
    assert not end.complete
    assert "damaged" in end.reason
    assert start < end.lsn <= start + 30_000


def _copy_of(source: Source, folder: Path) -> Path:
    """A copy of the repository that the server's user may read, which pytest's folder is not."""
    copy = source.repository.parent / folder.name
    shutil.copytree(source.repository, copy)
    source.tools.own(copy)
    return copy


def test_commit_order_is_that_of_the_server(source: Source, orders: dict[str, Any]) -> None:
    written = []
    for item in range(5):
        xid = source.transaction(f"insert into orders (item) values ('{item}')")
        (after,) = source.run("select pg_current_wal_insert_lsn()::text")
        written.append((xid, Lsn.parse(after)))
    source.run("begin; insert into orders (item) values ('never'); rollback")
    source.archive_all()
    start = Lsn.parse(orders["start_lsn"])
    with reading_view(source.repository, 1, source.tools) as wal:
        reading = Reading(wal, source.tools, start=start, rmgrs=TRANSACTIONS)
        commits = list(commit_order(reading))
        aborted = [e for e in endings(Reading(wal, source.tools, start=start)) if not e.committed]
    assert [commit.xid for commit in commits] == [xid for xid, _ in written]
    for commit, (_, after) in zip(commits, written, strict=True):
        assert start < commit.lsn < commit.end_lsn <= after
    assert len(aborted) == 1
    assert reading.end.complete


def test_record_ends_are_where_the_next_record_starts(
    source: Source, orders: dict[str, Any]
) -> None:
    """The arithmetic is held against pg_waldump, over pages, segments and a switch."""
    source.run("update orders set item = repeat('long ', 300) || random()")
    source.archive_all()
    with reading_view(source.repository, 1, source.tools) as wal:
        records = list(Reading(wal, source.tools, start=Lsn.parse(orders["start_lsn"])))
    size = wal.segment_size
    assert size == 1 << 20
    assert records[-1].lsn // size > records[0].lsn // size
    for record, following in pairwise(records):
        header = {0: 40}.get(record.end(size) % size, 24 * (record.end(size) % 8192 == 0))
        assert record.end(size) + header == following.lsn


@pytest.mark.parametrize("writer", ["receiver", "salvage"])
def test_the_archive_may_end_in_an_unfinished_segment(
    source: Source, tmp_path: Path, writer: str
) -> None:
    """Read up to the last whole record, not into the segments that a server keeps for reuse."""
    start = Lsn.parse(source.run("select pg_current_wal_insert_lsn()::text")[0])
    source.run("create table archived as select n from generate_series(1, 10) n")
    source.run("checkpoint", "drop table archived")
    repository = _copy_of(source, tmp_path)
    flushed = Lsn.parse(source.run("select pg_current_wal_flush_lsn()::text")[0])
    pg_wal, name = source.server.data / "pg_wal", segment_name(1, flushed, 1 << 20)
    if writer == "receiver":
        stream = repository / "stream" / "00000001"
        stream.mkdir(parents=True)
        shutil.copy(pg_wal / name, stream / f"{name}.partial")
    else:
        shutil.copytree(pg_wal, repository / "salvage" / "one" / "data" / "pg_wal")
    source.tools.own(repository)
    end = readable_end(repository, source.tools, timeline=1, start=start)
    assert (end.lsn, end.complete) == (flushed, True)
    assert f"the written WAL ends in {name}" in end.reason
    beyond = readable_end(repository, source.tools, timeline=1, start=start, end=flushed + 4096)
    assert not beyond.complete


def test_reading_follows_a_promotion_to_its_new_timeline() -> None:
    """Only the new timeline holds the last segment of the old one, as after a real failover."""
    with running_source() as source:
        source.run("create table orders as select n as id from generate_series(1, 200) n")
        facts = source.facts()
        before = source.transaction("delete from orders where id <= 150")
        _promote(source)
        after = source.transaction("truncate orders")
        source.archive_all()
        for partial in source.archive.glob("*.partial"):
            partial.unlink()
        stayed = source.find(facts, "orders")
        followed = source.find(facts, "orders", timeline=2)
    assert told(followed) == [("delete", 150, before), ("truncate", 50, after)]
    assert (followed.end.complete, followed.end.timeline) == (True, 2)
    assert [suspect.xid for suspect in stayed.suspects] in ([], [before])
    assert "timeline 2 left timeline 1 at" in stayed.unseen[-1]


def _promote(source: Source) -> None:
    """Stop, come back as a standby of nobody, promote."""
    source.server.stop()
    signal = source.server.data / "standby.signal"
    signal.touch()
    source.tools.own(signal)
    source.start()
    source.run("select pg_promote()")
