"""One row's identity on both sides: its primary key, and the key of its records."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import fastavro
import psycopg
from psycopg import sql

from pipeline.errors import ServerError
from pipeline.registry.client import RegistryClient

Key = tuple[object, ...]
Connection = psycopg.Connection[Any]

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - `timestamp` has no zone, and psycopg gives none
_COMPARABLE = (
    *("int2", "int4", "int8", "numeric", "bool", "text", "varchar", "uuid"),
    *("date", "timestamp", "timestamptz"),
)
_LOGICAL: dict[str, Callable[[Any], object]] = {
    "io.debezium.data.Uuid": UUID,
    "io.debezium.time.Date": lambda days: date(1970, 1, 1) + timedelta(days=days),
    "io.debezium.time.Timestamp": lambda ms: _EPOCH + timedelta(milliseconds=ms),
    "io.debezium.time.MicroTimestamp": lambda us: _EPOCH + timedelta(microseconds=us),
    "io.debezium.time.ZonedTimestamp": lambda text: datetime.fromisoformat(text).astimezone(UTC),
}
_COLUMNS = """
    SELECT a.attname, t.typname
    FROM pg_index i
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
    JOIN pg_type t ON t.oid = a.atttypid
    WHERE i.indrelid = format('%%I.%%I', %s::text, %s::text)::regclass AND i.indisprimary
    ORDER BY array_position(i.indkey::int2[], a.attnum)"""


@dataclass(frozen=True)
class KeyedTable:
    """A table and the columns of its primary key."""

    schema: str
    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)


def keyed_table(connection: Connection, name: str) -> KeyedTable:
    """Look `schema.table` up; ServerError when its keys cannot be compared with a topic's."""
    schema, _, table = name.partition(".")
    rows = connection.execute(_COLUMNS, [schema, table]).fetchall()
    if not rows:
        raise ServerError(f"{name} has no primary key: its records have no key to reconcile by")
    if foreign := [kind for _, kind in rows if kind not in _COMPARABLE]:
        raise ServerError(f"primary key of {name}: cannot compare keys of type {foreign}")
    columns, types = zip(*rows, strict=True)
    return KeyedTable(schema, table, columns, types)


def primary_keys(connection: Connection, table: KeyedTable) -> Iterator[Key]:
    """Stream the primary keys of every row, in the form in which KeyReader gives them."""
    columns = [
        # decimal.handling.mode=string: what PostgreSQL prints, trailing zeros included
        sql.SQL("{}::text" if kind == "numeric" else "{}").format(sql.Identifier(column))
        for column, kind in zip(table.columns, table.types, strict=True)
    ]
    query = sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(columns), table.identifier)
    with connection.cursor(name="primary_keys") as cursor:
        cursor.itersize = 10_000
        yield from cursor.execute(query)


class KeyReader:
    """Decodes record keys in Confluent's wire format (0, schema id, Avro) to primary keys."""

    MAGIC = 0
    PREFIX = 5

    def __init__(self, registry: RegistryClient, table: KeyedTable) -> None:
        self._registry = registry
        self._table = table
        self._schemas: dict[int, tuple[Any, list[Callable[[Any], object]]]] = {}

    def __call__(self, raw: bytes) -> Key:
        if len(raw) < self.PREFIX or raw[0] != self.MAGIC:
            raise ServerError(f"key {raw[:16]!r} of {self._table} is not in Confluent's format")
        schema, converters = self._schema(int.from_bytes(raw[1 : self.PREFIX], "big"))
        record: Any = fastavro.schemaless_reader(io.BytesIO(raw[self.PREFIX :]), schema, None)
        return tuple(
            convert(record[column])
            for column, convert in zip(self._table.columns, converters, strict=True)
        )

    def _schema(self, schema_id: int) -> tuple[Any, list[Callable[[Any], object]]]:
        if schema_id not in self._schemas:
            schema = json.loads(self._registry.schema_by_id(schema_id))
            kinds = {field["name"]: field["type"] for field in schema["fields"]}
            if set(kinds) != set(self._table.columns):
                raise ServerError(
                    f"keys with schema id {schema_id} have the fields {sorted(kinds)}; "
                    f"the primary key of {self._table} is {self._table.columns}"
                )
            converters = [_converter(kinds[column]) for column in self._table.columns]
            self._schemas[schema_id] = (fastavro.parse_schema(schema), converters)
        return self._schemas[schema_id]


def _converter(kind: object) -> Callable[[Any], object]:
    name = kind.get("connect.name") if isinstance(kind, dict) else None
    return _LOGICAL.get(name or "", lambda value: value)
