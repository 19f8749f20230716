"""A probe carries its time, and those of an observer can be held."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from fixtures.incident import IncidentLog
from fixtures.observer import Observer
from fixtures.service import Service
from fixtures.workload import send_probe
from pipeline.wait import wait_until
from tests.workload.shop import SOON, Shop, active

PROBES = "query LIKE 'INSERT INTO drill_probe%'"


def test_a_probe_carries_its_time(shop: Shop) -> None:
    sent = send_probe(shop.config.conninfo())
    with shop.connect() as connection:
        assert connection.execute("SELECT id FROM drill_probe").fetchone() == (round(sent * 1e9),)


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
