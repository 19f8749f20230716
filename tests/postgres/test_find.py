"""What `pipeline find` sees in the WAL of a real server, and how far it says that it saw."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.postgres.history.find import Findings, find
from tests.postgres.source import Source, copy_of, running_source


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
    damaged = copy_of(source, tmp_path)
    (damaged / "wal" / missing).unlink()
    findings = find(damaged, source.tools, backup_facts=orders, table="orders")
    assert [suspect.what for suspect in findings.suspects] == ["truncate"]
    assert not findings.end.complete
    assert f"segment {missing} is missing" in findings.unseen[0]


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
