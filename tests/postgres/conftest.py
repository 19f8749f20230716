"""One server for all that reads its WAL."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.postgres.source import Source, running_source


@pytest.fixture(scope="package")
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
