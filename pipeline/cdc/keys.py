"""One row's identity on both sides: the columns that are in its records' keys.

Which columns these are is told by the records: the primary key, a unique index, or what
message.key.columns names. A row is found by exactly what a key tells of it.
"""

import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import psycopg
from psycopg import sql

from pipeline.cdc.bare import bare_shape
from pipeline.cdc.forms import Column, Form, NotComparable, Shape
from pipeline.cdc.names import field_names, is_key_of
from pipeline.cdc.values import form
from pipeline.cdc.wire import Decoder, Message, Undecodable, native
from pipeline.errors import ServerError

Key = tuple[Hashable, ...]
Connection = psycopg.Connection[Any]

SETTINGS = {
    "datestyle": "ISO, YMD",
    "intervalstyle": "iso_8601",
    "timezone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "client_encoding": "UTF8",
    "row_security": "off",  # rows that a policy hides would make ghosts of their events
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
"""Of a session that reads rows: what it prints must not depend on who connects."""
_TABLES = """
    SELECT c.oid, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p')
      AND %s IN (n.nspname || '.' || c.relname, format('%%I.%%I', n.nspname, c.relname))"""
_COLUMNS = """
    WITH RECURSIVE resolved AS (
        SELECT attnum, attname, atttypid AS type, atttypmod AS modifier FROM pg_attribute
        WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped
        UNION ALL
        SELECT attnum, attname, typbasetype, CASE modifier WHEN -1 THEN typtypmod ELSE modifier END
        FROM resolved JOIN pg_type t ON t.oid = type WHERE typtype = 'd'
    ), named AS (
        SELECT t.oid, typcategory, typelem,
               CASE WHEN nspname = 'pg_catalog' OR typname IN ('citext', 'hstore')
                    THEN typname ELSE nspname || '.' || typname END AS kind
        FROM pg_type t JOIN pg_namespace n ON n.oid = typnamespace WHERE typtype <> 'd'
    )
    SELECT attname, t.kind, t.typcategory, modifier, e.kind, e.typcategory
    FROM resolved JOIN named t ON t.oid = type
    LEFT JOIN named e ON e.oid = t.typelem AND t.typcategory = 'A'
    ORDER BY attnum"""
_PRIMARY = """
    SELECT attname FROM pg_index i JOIN pg_attribute a ON attrelid = indrelid
    WHERE indrelid = %s AND indisprimary AND attnum = ANY (indkey)
    ORDER BY array_position(indkey::int2[], attnum)"""


@dataclass(frozen=True)
class KeyedTable:
    """A table and its columns, each of which may be in the keys of its records."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    primary: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    @cached_property
    def _by_field(self) -> dict[str, list[Column]]:
        found: dict[str, list[Column]] = {}
        for column in self.columns:
            for name in dict.fromkeys(field_names(column.name)):
                found.setdefault(name, []).append(column)
        return found

    def named(self, field: str) -> list[Column]:
        """Return the columns that a field may be: the one of that very name, else by adjustment."""
        found = self._by_field.get(field, [])
        return [one for one in found if one.name == field] or found


def keyed_table(connection: Connection, name: str) -> KeyedTable:
    """Look a table up by `schema.table`, spelt as it is or as SQL quotes it."""
    found = connection.execute(_TABLES, [name]).fetchall()
    if len(found) != 1:
        what = "no such table" if not found else f"{len(found)} tables of that name"
        raise ServerError(f"{name}: {what} in {connection.info.dbname}")
    [(oid, schema, table)] = found
    columns = tuple(_column(*row) for row in connection.execute(_COLUMNS, [oid]))
    primary = tuple(name for (name,) in connection.execute(_PRIMARY, [oid]))
    return KeyedTable(schema, table, columns, primary)


def _column(  # noqa: PLR0917 - a row of the query
    name: str, kind: str, category: str, modifier: int, element: str | None, of: str | None
) -> Column:
    inner = None if element is None else _column(name, element, of or "", modifier, None, None)
    if kind == "numeric" and modifier >= 0:
        digits, scale = (modifier - 4) >> 16 & 0xFFFF, (modifier - 4) & 0x7FF
        scale = scale - 0x800 if scale >= 0x400 else scale
        return Column(name, kind, category, digits, scale, inner)
    return Column(name, kind, category, modifier if modifier >= 0 else None, None, inner)


@dataclass(frozen=True)
class Layout:
    """How the keys of one schema are compared: columns and their forms, in the key's order."""

    parts: tuple[tuple[Column, Form], ...]

    @property
    def loses(self) -> str:
        """What these keys do not tell, where they tell less than the table."""
        return "; ".join(f"{column}: {f.loses}" for column, f in self.parts if f.loses)


def keys_of_rows(
    connection: Connection, table: KeyedTable, layouts: Sequence[Layout]
) -> Iterator[list[list[Key]]]:
    """Stream every row's keys in each layout, in the form in which KeyReader gives them.

    A row has more than one where a snapshot may have got a value wrong, the right one first.
    Without a layout it is what people know a row by: its primary key, else all of it.
    """
    if not layouts:
        known = [c for c in table.columns if c.name in table.primary] or table.columns
        layouts = [Layout(tuple((column, Form("printed", str, str)) for column in known))]
    columns = list(dict.fromkeys(column for one in layouts for column, _ in one.parts))
    places = [
        [(columns.index(column), f.of_row) for column, f in layout.parts] for layout in layouts
    ]
    for row in texts_of_rows(connection, table, columns):
        yield [
            list(product(*(_NULL if row[at] is None else read(row[at]) for at, read in place)))
            for place in places
        ]


def texts_of_rows(
    connection: Connection, table: KeyedTable, columns: Sequence[Column], condition: str = "true"
) -> Iterator[Sequence[Any]]:
    """Stream these columns of every row as the server prints them; last, what a condition says."""
    texts = sql.SQL(", ").join([*map(_as_text, columns), sql.SQL(condition)])
    with connection.cursor(name="texts_of_rows") as cursor:
        cursor.itersize = 10_000
        yield from cursor.execute(sql.SQL("SELECT {} FROM {}").format(texts, table.identifier))


_NULL = (None,)


def _as_text(column: Column) -> sql.Composed:
    """Have the server print a value by its type's output function, which a cast may differ from."""
    name = sql.Identifier(column.name)
    if column.element is not None:
        each = "SELECT CASE WHEN e IS NOT NULL THEN format('%s', e) END FROM unnest({}) e"
        text = sql.SQL(f"to_json(ARRAY({each}))::text").format(name)
    elif column.kind == "money":  # it prints as the locale has it
        text = sql.SQL("{}::numeric::text").format(name)
    else:
        text = sql.SQL("format('%s', {})").format(name)
    return sql.SQL("CASE WHEN {} IS NOT NULL THEN {} END").format(name, text)


class KeyReader:
    """Decodes record keys; `modes` asks for the connector's settings, where a key needs them."""

    def __init__(
        self,
        decoder: Decoder,
        table: KeyedTable,
        topic: str,
        modes: Callable[[], Mapping[str, str]],
    ) -> None:
        self._decode = decoder
        self._table, self._topic, self._modes = table, topic, modes
        self._named = table.named
        self._layouts: dict[Hashable, tuple[Layout, Sequence[str]]] = {}
        self._numbered: dict[int | None, tuple[Layout, Sequence[str]]] = {}

    def __call__(self, raw: bytes) -> tuple[Layout, Key]:
        """Read a key: Undecodable when it is none of this table's, NotComparable by its schema."""
        message = self._decode.message(raw)
        layout, names = self._of(message)
        try:
            values = [message.values[name] for name in names]
            if message.bare:
                values = list(map(native, self._shapes(message).values(), values))
            key = [
                None if value is None else part.event(value)
                for (_, part), value in zip(layout.parts, values, strict=True)
            ]
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
            raise Undecodable(f"{message.values} is no key of {self._table}: {error}") from error
        return layout, tuple(key)

    def _of(self, message: Message) -> tuple[Layout, Sequence[str]]:
        """Choose how a message is compared; messages of one schema, or of one shape, alike."""
        if message.number in self._numbered:
            return self._numbered[message.number]
        shapes = self._shapes(message)
        at = message.name, *shapes.items()
        if at not in self._layouts:
            self._layouts[at] = self._layout(message, shapes), tuple(shapes)
        if message.number is not None:
            self._numbered[message.number] = self._layouts[at]
        return self._layouts[at]

    def _shapes(self, message: Message) -> Mapping[str, Shape]:
        if not message.bare:
            return message.fields
        return {
            name: bare_shape(found[0], self._modes(), value)
            for name, value in message.values.items()
            if (found := self._named(name))
        }

    def _layout(self, message: Message, shapes: Mapping[str, Shape]) -> Layout:
        ours = is_key_of(message.name, self._table.schema, self._table.name, self._topic)
        if message.name.endswith(".Key") and not ours:
            raise Undecodable(f"it is a {message.name}, not one of {self._table}")
        unknown = [name for name in message.values if len(self._named(name)) != 1]
        if unknown or not shapes:
            told = f"its fields {list(message.values)} are not columns of {self._table}"
            raise NotComparable(told) if ours else Undecodable(told)
        return Layout(
            tuple(
                (column, form(column, shape, self._modes))
                for name, shape in shapes.items()
                for column in self._named(name)
            )
        )


def plain(raw: bytes) -> str:
    """Show a raw key to people."""
    try:
        return json.dumps(json.loads(raw), ensure_ascii=False)[:200]
    except ValueError:
        return repr(raw[:80])
