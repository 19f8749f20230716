"""Every type that can be a key, in every mode: real keys of Debezium against a real PostgreSQL.

The keys were captured (capture.py); types of extensions that the built-in server lacks have their
rows' text here, as PostgreSQL prints it.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg
import pytest

from pipeline.cdc.forms import Column, NotComparable
from pipeline.cdc.keys import (
    SETTINGS,
    KeyedTable,
    KeyReader,
    Layout,
    keyed_table,
    keys_of_rows,
    texts_of_rows,
)
from pipeline.cdc.row_states import RowReader
from pipeline.cdc.wire import Decoder, Undecodable
from tests.cdc.captured import COLUMNS, MODES, PREPARE, captures, raw_keys
from tests.postgres.source import running_source

PRINTED = {
    "citext": ("Straße", "ABC"),
    "ltree": ("Top.Science",),
    "hstore": ('"a"=>"1", "d"=>"q\\"q", "b c"=>NULL', ""),
}
UNLIKE = {"pair", "pg_lsn"}
"""Debezium leaves them out, or sends their bytes as it got them."""
UNWRITTEN = {("nanoseconds", "t_timestamp")}
"""What Debezium has no number for: nanoseconds end in the year 2262."""
ALWAYS = {"timetz", "varbit"}
NUMBERS = {"numeric", "numeric_20_0", "numeric_nan", "numeric_infinity", "money"}
TIMES = {"time", "time_24", "timestamp", "timestamp_bc", "timestamp_infinity"}
LOSSY = {
    "defaults": ALWAYS | {"interval"},
    "double": ALWAYS | NUMBERS,
    "string": ALWAYS | TIMES,
    "isostring": ALWAYS | {"interval"},
    "nanoseconds": ALWAYS | {"interval"},
    "microseconds": ALWAYS | {"interval"},
}
"""Whose keys tell less than their rows, so that nothing is buried by them."""


@pytest.fixture(scope="module")
def connection() -> Iterator[psycopg.Connection[Any]]:
    """A server with a table of each type, in a session as the reconciliation has it."""
    with running_source() as source, source.connect() as made:
        made.autocommit = True
        made.execute(";".join(one for one in PREPARE.split(";") if "EXTENSION" not in one))
        for column, (kind, values) in COLUMNS.items():
            if column not in PRINTED:
                made.execute(f"CREATE TABLE t_{column} (k {kind} PRIMARY KEY)")
                for value in values:
                    made.execute(f"INSERT INTO t_{column} VALUES ({value})")
        made.execute("ALTER SYSTEM SET timezone = 'Asia/Kolkata'")
        for setting, value in SETTINGS.items():
            made.execute("SELECT set_config(%s, %s, false)", [setting, value])
        yield made


@pytest.mark.parametrize("capture", captures())
def test_a_key_is_the_same_in_an_event_and_in_its_row(
    connection: psycopg.Connection[Any], capture: str
) -> None:
    """Of every type: read by the snapshot, and from the slot."""
    wrong, lossy = [], set()
    for place in captures()[capture]["keys"]:
        column = place.partition(".")[2]
        if column in UNLIKE or column == "last":
            continue
        table = _table(connection, place)
        found = _compared(connection, capture, table, raw_keys(capture, place))
        wrong += [f"{place}: {trouble}" for trouble in found[0]]
        lossy |= {column} if found[1] else set()
    assert not wrong, "\n".join(wrong)
    captured = {place.partition(".")[2] for place in captures()[capture]["keys"]}
    assert lossy == LOSSY[capture.split()[1]] & captured


@pytest.mark.parametrize("capture", captures())
def test_a_value_is_the_same_in_an_event_and_in_its_row(
    connection: psycopg.Connection[Any], capture: str
) -> None:
    """As a column of a row, by the same captures: a value is written as a key is."""
    wrong = []
    for place in captures()[capture]["keys"]:
        column = place.partition(".")[2]
        if column in PRINTED or column in UNLIKE or column == "last":
            continue
        table, decoder = _table(connection, place), _decoder(capture)
        read = RowReader(table, partial(_told, capture))
        states = [read.state(decoder.message(raw), None) for raw in raw_keys(capture, place)]
        with connection.transaction():
            real = replace(table, schema="public")
            rows = list(texts_of_rows(connection, real, table.columns))
        wrong += [
            f"{place}: {read.unlike or rows}"
            for state in states
            if read.unlike or all(list(read.differing(state, row)) for row in rows)
        ]
    assert not wrong, "\n".join(wrong)


def _decoder(capture: str) -> Decoder:
    schemas = captures()[capture]["schemas"]
    return Decoder(lambda number: json.dumps(schemas[str(number)]))


def _told(capture: str) -> dict[str, str]:
    return {"decimal.handling.mode": "string"} | MODES[capture.split()[1]]


def _compared(
    connection: psycopg.Connection[Any], capture: str, table: KeyedTable, raws: list[bytes]
) -> tuple[list[str], str]:
    modes = capture.split()[1]
    read = KeyReader(_decoder(capture), table, "captured", lambda: _told(capture))
    try:
        events = [read(raw) for raw in raws]
    except (Undecodable, NotComparable) as error:
        return [f"{type(error).__name__} {error}"], ""
    layouts = list(dict.fromkeys(layout for layout, _ in events))
    rows = list(_rows(connection, table, layouts))
    if len(events) != len(rows) and (modes, table.name) not in UNWRITTEN:
        return [f"{len(events)} events of {len(rows)} rows"], ""
    wrong = [
        f"{key} is no row's of {rows}"
        for layout, key in events
        if not any(key in row[layouts.index(layout)] for row in rows)
    ]
    return wrong, layouts[0].loses


def _table(connection: psycopg.Connection[Any], place: str) -> KeyedTable:
    schema, _, column = place.partition(".")
    if column in PRINTED:
        return KeyedTable(schema, f"t_{column}", (Column("k", column, "U"),), ("k",))
    return replace(keyed_table(connection, f"public.t_{column}"), schema=schema)


def _rows(
    connection: psycopg.Connection[Any], table: KeyedTable, layouts: list[Layout]
) -> Iterator[list[list[Any]]]:
    if texts := PRINTED.get(table.name.removeprefix("t_")):
        for text in texts:
            yield [[(value,) for value in layout.parts[0][1].of_row(text)] for layout in layouts]
        return
    with connection.transaction():
        yield from keys_of_rows(connection, replace(table, schema="public"), layouts)
