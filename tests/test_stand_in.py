"""Which connector can be stood in for, and which changes it would tell of: no server is asked."""

import json
from types import SimpleNamespace

import pytest

from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.redecoded import NotTold, Owed
from pipeline.cdc.stand_in import ChangePlace, StandIn, _reaches, captured, unfit
from pipeline.cdc.wire import Decoder
from pipeline.errors import RestoreError
from pipeline.postgres.wal.lsn import Lsn
from tests.recovery.workers import worker

FIT = {
    "plugin.name": "pgoutput",
    "database.user": "debezium",
    "database.password": "${dir:/secrets:debezium}",
    "topic.prefix": "shop",
}
CHANGE = {"op": "update", "table": "public.goods"}
DECODER = Decoder(lambda _id: "")
LAST = ChangePlace(Lsn(300), Lsn(200), 981)


def test_a_connector_of_common_settings_is_fit() -> None:
    assert list(unfit(FIT)) == []


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("transforms", "route", "transforms=route may give events another form"),
        ("plugin.name", "decoderbufs", "plugin.name is 'decoderbufs'"),
        ("topic.naming.strategy", "com.example.Mine", "topic.naming.strategy is"),
        ("topic.delimiter", "_", "topic.delimiter is '_'"),
        ("skip.messages.without.change", "true", "skip.messages.without.change is 'true'"),
        ("message.key.columns", "public.goods:kind", "message.key.columns=public.goods:kind may"),
        ("database.user", "${env:USER}", "its database.user is known to its worker alone"),
        ("database.password", None, "it has no database.password"),
    ],
)
def test_what_could_not_be_proven_is_refused_by_name(
    setting: str, value: str | None, told: str
) -> None:
    given = {name: one for name, one in {**FIT, setting: value}.items() if one is not None}
    (found,) = unfit(given)
    assert told in found


def test_a_connector_of_others_with_its_name_is_left_alone() -> None:
    theirs = {"slot.name": "theirs", "database.dbname": "postgres"}
    with worker({"shop": FIT, "shop-redecode": theirs}) as url, ConnectClient(url) as client:
        with pytest.raises(RestoreError, match=r"shop-redecode reads slot 'theirs': it is not"):
            StandIn(client, "shop", "shop").remove()
        StandIn(client, "others", "shop").remove()


def event(key: bytes | None) -> SimpleNamespace:
    """A record of a row of public.goods, as its topic has it."""
    source = {"schema": "public", "table": "goods", "lsn": 200, "txId": 981}
    value = json.dumps({"op": "c", "source": source, "after": {}}).encode()
    return SimpleNamespace(
        topic=lambda: "shop.public.goods",
        partition=lambda: 0,
        offset=lambda: 0,
        key=lambda: key,
        value=lambda: value,
    )


@pytest.mark.parametrize(
    ("rows", "key", "known"), [(1, None, True), (2, b"1", True), (2, None, False)]
)
def test_rows_of_one_record_without_a_key_cannot_be_told_apart(
    rows: int, key: bytes | None, *, known: bool
) -> None:
    """A repeated one would be taken for one that is missing."""
    change = {"op": "insert", "table": "public.goods", "at": "0/C8", "xid": 981}
    with Owed() as owed:
        for _ in range(rows):
            owed.hold(change)
        if known:
            assert owed._saw(event(key), DECODER)
        else:
            with pytest.raises(NotTold, match="it has no key, and one record of WAL holds several"):
                owed._saw(event(key), DECODER)


@pytest.mark.parametrize(
    ("settings", "events"),
    [
        ({}, 1),
        ({"table.include.list": r"public\.goods"}, 1),
        ({"table.include.list": r"public\.orders"}, 0),
        ({"schema.exclude.list": "public"}, 0),
        ({"skipped.operations": "t, u"}, 0),
        ({"skipped.operations": "none"}, 1),
        ({"signal.data.collection": "public.goods"}, 0),
    ],
)
def test_a_change_is_owed_where_the_connector_reads_it(
    settings: dict[str, str], events: int
) -> None:
    assert [one["table"] for one in captured(settings, CHANGE)] == ["public.goods"] * events


def test_a_truncation_is_told_of_each_table_and_by_default_of_none() -> None:
    emptied = {"op": "truncate", "tables": ["public.goods", "public.orders"]}
    assert list(captured({}, emptied)) == []
    told = list(captured({"skipped.operations": "none"}, emptied))
    assert [one["table"] for one in told] == emptied["tables"]
    assert not any("tables" in one for one in told)


def test_a_message_is_told_unless_its_prefix_is_left_out() -> None:
    message = {"op": "message", "prefix": "outbox"}
    assert list(captured({}, message)) == [message]
    assert list(captured({"message.prefix.exclude.list": "out.*"}, message)) == []


@pytest.mark.parametrize(
    ("offset", "reached"),
    [
        ({"lsn": 200, "lsn_commit": 100, "txId": 981}, True),
        ({"lsn": 308, "lsn_commit": 308, "txId": 981}, True),
        # of transactions side by side the one that commits first may have changed rows last
        ({"lsn": 250, "lsn_commit": 260, "txId": 980}, False),
        ({"lsn": 200, "lsn_commit": 100, "txId": 980}, False),
        ({"lsn": 190, "lsn_commit": 300, "txId": 981}, False),
        ({}, False),
    ],
)
def test_a_change_was_sent_where_itself_or_its_commit_is_stored(
    offset: dict[str, int], *, reached: bool
) -> None:
    assert _reaches(offset, LAST) is reached
