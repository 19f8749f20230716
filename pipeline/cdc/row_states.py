"""A row's state as an event has it and as its table has it: one digest for each column.

Columns are compared one by one, each in the canonical form that its own event allows. A column that
the event leaves out is not compared, and neither is one whose type no rule compares; both are told.
"""

import base64
import json
import struct
import uuid
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import blake2b, md5
from typing import Any

from pipeline.cdc.bare import bare_shape
from pipeline.cdc.forms import Column, Form, NotComparable, Shape
from pipeline.cdc.keys import KeyedTable
from pipeline.cdc.values import form
from pipeline.cdc.wire import Message, Undecodable, native

PLACEHOLDER = "__debezium_unavailable_value"
"""What Debezium writes for a TOASTed column that an update left as it was, where not told else."""
_ENTRY = struct.Struct(">HH8s")
"""Of a state: number of a column, of the form, and a digest."""
_NO_NUMBERS = {"NaN", "Infinity", "-Infinity"}
_NULL, _UNTOLD = 0xFFFF, 0xFFFE


def digest(value: Hashable, size: int = 8) -> bytes:
    """Reduce a value in its canonical form: equal ones to equal digests, also in another run."""
    return blake2b(json.dumps(_plain(value)).encode(), digest_size=size).digest()


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        sign, digits, exponent = value.as_tuple()
        text = "".join(map(str, digits)).lstrip("0")
        if not text:
            return ["n", "0"]
        stripped = text.rstrip("0")
        return ["n", f"{'-' * sign}{stripped}e{int(exponent) + len(text) - len(stripped)}"]
    if isinstance(value, float):
        return ["f", repr(value + 0.0)]  # of two zeros one is negative, and equal
    if isinstance(value, bytes):
        return ["b", value.hex()]
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value


@dataclass(frozen=True)
class _Part:
    field: str
    column: int
    form: int
    event: Callable[[Any], Hashable]


class RowReader:
    """Reads rows out of events of one table; `modes` asks for the connector's settings."""

    def __init__(
        self,
        table: KeyedTable,
        modes: Callable[[], Mapping[str, str]],
        altered: Collection[str] = (),
    ) -> None:
        self._table, self._modes = table, modes
        self._altered = altered
        """Columns whose values are others in events, as the connector is told."""
        self._at = {column: at for at, column in enumerate(table.columns)}
        self._forms: list[Form] = []
        self._numbers: dict[tuple[Column, Form], int] = {}
        self._known: dict[Hashable, list[_Part]] = {}
        self._holders = _placeholders(modes)
        self.untold: set[str] = {column.name for column in table.columns}
        """Columns that no event has told so far."""
        self.unlike: dict[str, str] = {}
        """Columns that cannot be compared, with the reason."""
        self.lossy: dict[str, str] = {}
        """What events do not tell of a column."""

    def state(self, row: Message, before: bytes | None) -> bytes:
        """Reduce a row of an event to its state; Undecodable where a value is none of the column's.

        `before` is the state that the row had: an update leaves out what lies in TOAST.
        """
        kept = dict(_entries(before or b""))
        found = []
        for part in self._parts(row):
            value = row.values.get(part.field)
            if value is None:
                found.append(_ENTRY.pack(part.column, _NULL, bytes(8)))
            elif self._holders and _key(value) in self._holders:
                found.append(kept.get(part.column, _ENTRY.pack(part.column, _UNTOLD, bytes(8))))
            else:
                try:
                    told = digest(part.event(value))
                except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
                    where = f"{self._table}.{part.field}"
                    raise Undecodable(f"{value!r:.80} is no value of {where}: {error}") from error
                found.append(_ENTRY.pack(part.column, part.form, told))
        return b"".join(found)

    def differing(self, state: bytes, row: Sequence[str | None]) -> Iterator[str]:
        """Name the columns in which a row of the table is not what a state tells."""
        for column, entry in _entries(state):
            _, number, told = _ENTRY.unpack(entry)
            text = row[column]
            if number == _UNTOLD:
                name = self._table.columns[column].name
                self.lossy.setdefault(name, "what lies in TOAST where an earlier event is gone")
                continue
            if text is None or number == _NULL:
                same = number == _NULL and (text is None or self._left_null(column, text))
            else:
                forms = self._forms[number].of_row(text)
                same = any(digest(one) == told for one in forms)
            if not same:
                yield self._table.columns[column].name

    def _left_null(self, column: int, text: str) -> bool:
        """Whether Debezium writes NULL for this value: NaN as a decimal, and what is a `name`."""
        of, mode = self._table.columns[column], self._modes().get("decimal.handling.mode")
        if of.kind == "numeric" and text in _NO_NUMBERS and mode in {None, "precise"}:
            self.lossy.setdefault(of.name, "NaN and infinities")
        elif of.kind == "name":
            self.lossy.setdefault(of.name, "what was streamed")
        else:
            return False
        return True

    def _parts(self, row: Message) -> list[_Part]:
        shapes = row.fields or self._bare(row)
        at: Hashable = row.number if row.number is not None else (row.name, *shapes.items())
        if at not in self._known:
            self._known[at] = list(self._compared(row, shapes))
        return self._known[at]

    def _bare(self, row: Message) -> Mapping[str, Shape]:
        return {
            name: bare_shape(found[0], self._modes(), value)
            for name, value in row.values.items()
            if len(found := self._table.named(name)) == 1
        }

    def _compared(self, row: Message, shapes: Mapping[str, Shape]) -> Iterator[_Part]:
        for field, shape in shapes.items():
            found = self._table.named(field)
            if len(found) != 1:
                continue  # a column that was dropped since
            [column] = found
            if column.name in self._altered:
                continue
            try:
                made = form(column, shape, self._modes)
            except NotComparable as error:
                if not row.bare or row.values[field] is not None:
                    self.unlike[column.name] = str(error)
                    self.untold.discard(column.name)
                continue
            self.untold.discard(column.name)
            if made.loses and (not row.bare or row.values[field] is not None):
                self.lossy[column.name] = made.loses
            read = _natively(shape, made.event) if row.bare else made.event
            yield _Part(field, self._at[column], self._number(column, made), read)

    def _number(self, column: Column, made: Form) -> int:
        if (column, made) not in self._numbers:
            self._numbers[column, made] = len(self._forms)
            self._forms.append(made)
        return self._numbers[column, made]


def _natively(shape: Shape, read: Callable[[Any], Hashable]) -> Callable[[Any], Hashable]:
    return lambda value: read(native(shape, value))


def _entries(state: bytes) -> Iterator[tuple[int, bytes]]:
    for at in range(0, len(state), _ENTRY.size):
        entry = state[at : at + _ENTRY.size]
        yield _ENTRY.unpack(entry)[0], entry


def _placeholders(modes: Callable[[], Mapping[str, str]]) -> set[Hashable]:
    """Every form that the placeholder has: of bytes, of arrays, of hstore (3.7)."""
    text = modes().get("unavailable.value.placeholder", PLACEHOLDER)
    raw = text.encode()
    if text.startswith("hex:"):
        raw = bytes.fromhex(text.removeprefix("hex:"))
        text = raw.decode(errors="replace")
    one = uuid.UUID(bytes=md5(raw, usedforsecurity=False).digest(), version=3)
    return {_key(each) for each in _spelt(text, raw, str(one))}


def _spelt(text: str, raw: bytes, one: str) -> Iterator[object]:
    yield from (text, raw, [text], [one], list(raw), {text: text}, json.dumps({text: text}))
    yield from (raw.hex(), base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode())


def _key(value: object) -> Hashable:
    return repr(value) if isinstance(value, list | dict) else value
