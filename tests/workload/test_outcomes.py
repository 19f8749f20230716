"""Clients, ledger and classifier against a real PostgreSQL and its outages."""

import time
from datetime import timedelta
from typing import Any

import psycopg

from fixtures.ledger import Classification, Found
from fixtures.workload import TABLES, publication_sql
from pipeline.wait import wait_until
from tests.workload.shop import SOON, Shop


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
