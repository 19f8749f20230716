"""PostgreSQL's value and Debezium's value of one column are the same to the ledger."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from random import Random
from uuid import UUID

import pytest

from fixtures.workload.rows import SIZE, UNAVAILABLE, UNRESOLVED, Kind, canonical, digest
from fixtures.workload.schema import DOCUMENTS, TABLES
from fixtures.workload.values import COLUMNS

MOMENT = datetime(2024, 2, 29, 23, 59, 59, 120000, tzinfo=UTC)
REFERENCE = "0fc5c51c-9c3a-4a53-9a7a-0123456789ab"

SAME = [
    (Kind.INTEGER, -(2**62), -(2**62)),
    (Kind.TEXT, "çilek 🍵 'x'", "çilek 🍵 'x'"),
    (Kind.NUMERIC, Decimal("-12.50"), "-12.50"),
    (Kind.NUMERIC, Decimal("0.0000"), "0E-4"),
    (Kind.NUMERIC, Decimal("9" * 26 + ".1234"), "9" * 26 + ".1234"),
    (Kind.BOOLEAN, True, True),
    (Kind.TIMESTAMPTZ, MOMENT, "2024-02-29T23:59:59.12Z"),
    (Kind.TIMESTAMPTZ, MOMENT.astimezone(timezone(timedelta(hours=2))), "2024-02-29T23:59:59.120Z"),
    (Kind.TIMESTAMP, MOMENT.replace(tzinfo=None), 1709251199120000),
    (Kind.DATE, date(1969, 12, 31), -1),
    (Kind.UUID, UUID(REFERENCE), REFERENCE),
    (Kind.JSON, '{"b": [1, null], "a": 1.50}', '{"a":1.50,"b":[1,null]}'),
]


@pytest.mark.parametrize(("kind", "postgres", "debezium"), SAME)
def test_both_spellings_are_one(kind: Kind, postgres: object, debezium: object) -> None:
    assert canonical(kind, postgres) == canonical(kind, debezium)


@pytest.mark.parametrize("kind", Kind)
def test_null_is_no_value(kind: Kind) -> None:
    assert canonical(kind, None) == b""


def test_null_empty_and_the_word_null_differ() -> None:
    values = (None, "", "None", "null")
    assert len({canonical(Kind.TEXT, value) for value in values}) == len(values)


def test_a_scale_that_changed_is_a_change() -> None:
    assert canonical(Kind.NUMERIC, Decimal("1.5")) != canonical(Kind.NUMERIC, Decimal("1.50"))


def test_every_column_of_every_table_has_a_canonical_value() -> None:
    rng = Random(7)
    for name, table in TABLES.items():
        for column, make in COLUMNS[name].items():
            for _ in range(50):
                assert len(digest(table.columns[column], make(rng))) == SIZE


def test_an_event_tells_what_it_left_alone_and_what_it_lacks() -> None:
    after = {"id": 1, "title": "t", "meta": None, "body": UNAVAILABLE}
    digests = dict(zip(DOCUMENTS.columns, DOCUMENTS.digests_of_event(after), strict=True))
    assert digests["title"] == digest(Kind.TEXT, "t")
    assert digests["body"] is None
    assert digests["rev"] == UNRESOLVED
