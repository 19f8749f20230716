"""One value of a column, as an event has it and as PostgreSQL prints it, in one canonical form.

Debezium writes the same value in many ways: decimal.handling.mode, time.precision.mode,
interval.handling.mode, binary.handling.mode and hstore.handling.mode choose one, and a topic may
hold records of several. So each is read by the schema of its own message, and brought to what
PostgreSQL calls equal. Where a mode keeps less than the column, the row's value is cut down to what
it keeps, and the form says what was lost: two rows may then have one key.
"""

import base64
import json
import re
import struct
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from typing import Any

from pipeline.cdc.moments import DAY, MONTH, Moment, clock, interval, moment
from pipeline.errors import ServerError

CONNECT = "org.apache.kafka.connect.data."
TIME = "io.debezium.time."
DATA = "io.debezium.data."
EXACT_IN_DOUBLE = 15
"""Decimal digits that survive in a double (DBL_DIG)."""


class NotComparable(ServerError):
    """Nothing tells which value of the table a value of an event is."""


@dataclass(frozen=True)
class Column:
    """A column of a table: domains are resolved to the type that they are over.

    `kind` is pg_type's name, `category` its typcategory, `digits` the precision of a numeric,
    a time or a timestamp, and the length of a bit string.
    """

    name: str
    kind: str
    category: str = ""
    digits: int | None = None
    scale: int | None = None
    element: "Column | None" = None

    def __str__(self) -> str:
        return f"{self.name} {self.element.kind}[]" if self.element else f"{self.name} {self.kind}"


@dataclass(frozen=True)
class Shape:
    """What a message's schema says of a value: Connect's type, its semantic name, its scale."""

    type: str
    name: str = ""
    scale: int | None = None
    items: "Shape | None" = None

    def __str__(self) -> str:
        return f"{self.type} {self.name}".rstrip()


@dataclass(frozen=True)
class Form:
    """How both sides become comparable; equal by name, so that equal schemas are compared once."""

    name: str
    event: Callable[[Any], Hashable] = field(compare=False)
    table: Callable[[str], Hashable] = field(compare=False)
    loses: str = ""
    """What an event in this form does not tell, where it tells less than the column."""
    otherwise: Callable[[str], tuple[Hashable, ...]] | None = field(default=None, compare=False)
    """As what else a row's value may be found, where snapshots of Debezium get it wrong."""

    def of_row(self, text: str) -> tuple[Hashable, ...]:
        """Give every form in which a row's value may be in the topic, the right one first."""
        right = self.table(text)
        return (right, *self.otherwise(text)) if self.otherwise else (right,)


def form(column: Column, shape: Shape, modes: Callable[[], Mapping[str, str]] = dict) -> Form:
    """Choose the form for a column whose events have that shape; NotComparable names the type.

    `modes` asks for the connector's settings: no schema tells how binary.handling.mode encoded.
    """
    if column.element is not None:
        made = _array(column, shape)
    elif column.kind == "bytea":
        made = _bytes(shape, modes().get("binary.handling.mode", "bytes"))
    else:
        made = _MAKERS.get(column.kind, _text)(column, shape)
    if made is None:
        raise NotComparable(f"column {column}: no rule compares it with {shape} of an event")
    return made


_Maker = Callable[[Column, Shape], Form | None]


def _number(column: Column, shape: Shape) -> Form | None:
    event: Callable[[Any], Hashable]
    if shape.type == "double" and column.kind in {"numeric", "money"}:
        if column.digits is None or column.digits > EXACT_IN_DOUBLE:
            return Form("double", _double, _double, "digits beyond a double's")
        return Form("short double", lambda v: _decimal(repr(float(v))), _decimal)
    if shape.name == f"{DATA}VariableScaleDecimal":
        event = _variable
    elif shape.type == "bytes" and shape.name == f"{CONNECT}Decimal":
        scale = shape.scale if shape.scale is not None else column.scale or 0
        event = lambda v: v if isinstance(v, Decimal) else _unscaled(v, scale)  # noqa: E731
    elif shape.type in {"int", "string"} and not shape.name:
        event = lambda v: _decimal(str(v))  # noqa: E731
    else:
        return None
    return Form(f"decimal {shape} {shape.scale}", event, _decimal)


_SPECIAL = {
    "POSITIVE_INFINITY": "Infinity",
    "NEGATIVE_INFINITY": "-Infinity",
    "NOT_A_NUMBER": "NaN",
}
"""What SpecialValueDecimal is called as a string."""


def _decimal(text: str) -> Hashable:
    """Read a number; equal values are equal whatever their scale, and NaN is equal to itself."""
    try:
        number = Decimal(_SPECIAL.get(text, text))
    except InvalidOperation as error:
        raise ValueError(f"{text!r} is not a number") from error
    return number if number.is_finite() else str(number)


def _unscaled(raw: bytes, scale: int) -> Decimal:
    sign, digits = (raw[:1] > b"\x7f"), abs(int.from_bytes(raw, "big", signed=True))
    return Decimal((int(sign), tuple(map(int, str(digits))), -scale))


def _variable(value: Mapping[str, Any]) -> Decimal:
    return _unscaled(value["value"], value["scale"])


def _integer(_column: Column, shape: Shape) -> Form | None:
    return Form("integer", int, int) if shape.type == "int" and not shape.name else None


def _double(value: Any) -> Hashable:  # noqa: ANN401 - a number or its text
    number = float(value)
    return "NaN" if number != number else number  # noqa: PLR0124 - what NaN is known by


def _single(value: Any) -> Hashable:  # noqa: ANN401 - a number or its text
    number = float(value)
    try:
        return _double(struct.unpack("f", struct.pack("f", number))[0])
    except OverflowError:
        return number


def _float(column: Column, shape: Shape) -> Form | None:
    if shape.type not in {"float", "double"} or shape.name:
        return None
    read = _single if column.kind == "float4" else _double
    return Form(column.kind, read, read)


def _bool(_column: Column, shape: Shape) -> Form | None:
    return Form("boolean", bool, "t".__eq__) if shape.type == "boolean" else None


def _text(column: Column, shape: Shape) -> Form | None:
    """Take the text as it is: of strings, and of what Debezium passes on as it is printed."""
    if shape.type != "string" or column.category == "C":
        return None
    if column.kind == "bpchar":  # its blanks at the end mean nothing
        return Form("padded", lambda v: v.rstrip(" "), lambda v: v.rstrip(" "))
    if column.kind == "citext":
        return Form("caseless", str.casefold, str.casefold)
    # of the type `name` Debezium streams every value as an empty text
    return Form("text", str, str, otherwise=_empty if column.kind == "name" else None)


def _empty(_text: str) -> tuple[Hashable, ...]:
    return ("",)


_UNITS = {
    f"{TIME}Date": DAY,
    f"{CONNECT}Date": DAY,
    f"{TIME}Timestamp": 1000,
    f"{CONNECT}Timestamp": 1000,
    f"{TIME}MicroTimestamp": 1,
    f"{TIME}Time": 1000,
    f"{CONNECT}Time": 1000,
    f"{TIME}MicroTime": 1,
}
"""Microseconds of which each is the count."""
_NANOSECONDS = {f"{TIME}NanoTimestamp", f"{TIME}NanoTime"}
_MILLISECOND_DIGITS = 3


def _instant(column: Column, shape: Shape, read: Callable[[str], Moment]) -> Form | None:
    """Compare moments and times of day: as counts of a unit, or as text."""
    if shape.type == "string":
        loses = "its zone" if column.kind == "timetz" else ""
        return Form(f"moment {shape}", lambda v: _finite(read(v)), read, loses, _midnight)
    if shape.name in _NANOSECONDS:
        return Form("nanoseconds", lambda v: _infinite(v, 1) or v // 1000, read)
    if (unit := _UNITS.get(shape.name)) is None:
        return None

    def table(text: str) -> Moment:
        found = read(text)
        return found if isinstance(found, str) else found // unit

    fine = unit == 1000 and (column.digits is None or column.digits > _MILLISECOND_DIGITS)
    loses = "what is below a millisecond" if fine else ""
    return Form(f"{unit} µs", lambda v: _infinite(v, unit) or int(v), table, loses)


def _finite(found: Moment) -> Moment:
    return _INFINITE_AS_TEXT.get(found, found)


def _midnight(text: str) -> tuple[Hashable, ...]:
    """As text the time 24:00 is 00:00, which in PostgreSQL is another."""
    return (0,) if text == "24:00:00" else ()


def _infinite(value: int, unit: int) -> str | None:
    return _INFINITE.get((unit, value))


_INFINITE = {
    (1, 2**63 - 1): "infinity",
    (1, -(2**63)): "-infinity",
    (1000, 9223372036825200000): "infinity",
    (1000, -9223372036832400000): "-infinity",
    (DAY, 2146033979): "infinity",
    (DAY, -2147472691): "-infinity",
    (DAY, -622191234): "infinity",  # of a snapshot, as the next
    (DAY, -625821272): "-infinity",
}
_INFINITE_AS_TEXT: dict[Moment, Moment] = {
    9223372036825200000000: "infinity",
    -9223372036832400000000: "-infinity",
    185417335785600000000: "infinity",
    -185541640502400000000: "-infinity",
    9223372036742400000000: "infinity",  # of a snapshot, as the next
    9223058401459200000000: "-infinity",
}
"""What Debezium 3.7 makes of them, none of which PostgreSQL has as a finite value."""


def _moment(column: Column, shape: Shape) -> Form | None:
    made = _instant(column, shape, moment)
    if made is None or column.kind != "date":
        return made
    return replace(made, otherwise=lambda text: _era_lost(made, text))


def _era_lost(made: Form, text: str) -> tuple[Hashable, ...]:
    """A snapshot has java.sql.Date make a date of our era of one before it."""
    return (made.table(text.removesuffix(" BC")),) if text.endswith(" BC") else ()


def _clock(column: Column, shape: Shape) -> Form | None:
    return _instant(column, shape, clock)


def _interval(_column: Column, shape: Shape) -> Form | None:
    if shape.name == f"{TIME}Interval":
        return Form("interval", _span, _span)
    if shape.name == f"{TIME}MicroDuration":
        return Form("duration", int, _duration, "months, of which it makes days of an average year")
    return None


def _span(text: str) -> int:
    months, days, micros = interval(text)
    return months * MONTH + days * DAY + micros


def _duration(text: str) -> int:
    months, days, micros = interval(text)
    return months * 365_25 * DAY // 12_00 + days * DAY + micros


def _bits(column: Column, shape: Shape) -> Form | None:
    if shape.type == "boolean":
        return Form("bit", bool, lambda v: "1" in v)
    if shape.name != f"{DATA}Bits":
        return None
    loses = "how many zeros it begins with" if column.kind == "varbit" else ""
    return Form("bits", lambda v: int.from_bytes(v, "little"), lambda v: int(v or "0", 2), loses)


_ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "base64": lambda text: base64.b64decode(text, validate=True),
    "base64-url-safe": lambda text: base64.b64decode(text, altchars=b"-_", validate=True),
    "hex": bytes.fromhex,
}


def _bytes(shape: Shape, mode: str) -> Form | None:
    if shape.type == "bytes" and not shape.name:
        return Form("bytes", bytes, _hexadecimal)
    if shape.type == "string" and mode in _ENCODINGS:
        return Form(mode, _ENCODINGS[mode], _hexadecimal)
    return None


def _hexadecimal(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("\\x"))


def _uuid(_column: Column, shape: Shape) -> Form | None:
    return Form("uuid", str.lower, str.lower) if shape.type == "string" else None


def _json(_column: Column, shape: Shape) -> Form | None:
    return Form("json", _same_json, _same_json) if shape.type == "string" else None


def _same_json(text: str) -> str:
    return _dumped(json.loads(text, parse_float=Decimal, parse_int=Decimal))


def _dumped(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=_digits)


def _digits(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_PAIR = re.compile(r'"((?:[^"\\]|\\.)*)"=>(?:"((?:[^"\\]|\\.)*)"|NULL)')


def _hstore(_column: Column, shape: Shape) -> Form | None:
    if shape.type == "map":
        return Form("map", _dumped, _pairs)
    if shape.type == "string":
        return Form("json", _same_json, _pairs)
    return None


def _pairs(text: str) -> str:
    def plain(quoted: str) -> str:
        return re.sub(r"\\(.)", r"\1", quoted)

    found = {
        plain(one[1]): None if one[2] is None else plain(one[2]) for one in _PAIR.finditer(text)
    }
    return _dumped(found)


_QUOTED = re.compile(r'"([^"]*)"')


def _zoned_range(_column: Column, shape: Shape) -> Form | None:
    """Compare ranges of timestamptz by their moments: each session prints its own zone."""
    if shape.type != "string":
        return None

    def read(text: str) -> str:
        return _QUOTED.sub(lambda bound: str(moment(bound[1])), text)

    return Form("zoned range", read, read)


def _array(column: Column, shape: Shape) -> Form | None:
    """Compare lists by their elements; the table gives them as a list in JSON."""
    if shape.type != "array" or shape.items is None or column.element is None:
        return None
    inner = form(column.element, shape.items)

    def each(read: Callable[[Any], Hashable], values: Sequence[Any]) -> Hashable:
        return tuple(None if value is None else read(value) for value in values)

    return Form(
        f"array of {inner.name}",
        lambda v: each(inner.event, v),
        lambda v: each(inner.table, json.loads(v)),
        inner.loses,
    )


_MAKERS: dict[str, _Maker] = {
    **dict.fromkeys(("int2", "int4", "int8", "oid"), _integer),
    **dict.fromkeys(("numeric", "money"), _number),
    **dict.fromkeys(("float4", "float8"), _float),
    **dict.fromkeys(("date", "timestamp", "timestamptz"), _moment),
    **dict.fromkeys(("time", "timetz"), _clock),
    **dict.fromkeys(("bit", "varbit"), _bits),
    "bool": _bool,
    "interval": _interval,
    "uuid": _uuid,
    "jsonb": _json,
    "hstore": _hstore,
    "tstzrange": _zoned_range,
}
