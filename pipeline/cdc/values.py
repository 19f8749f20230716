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
from collections.abc import Callable, Hashable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from pipeline.cdc.forms import DATA, Column, Form, Maker, NotComparable, Shape
from pipeline.cdc.moment_forms import clock_form, interval_form, moment_form
from pipeline.cdc.moments import moment
from pipeline.cdc.number_forms import float_form, integer_form, number_form


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


_MAKERS: dict[str, Maker] = {
    **dict.fromkeys(("int2", "int4", "int8", "oid"), integer_form),
    **dict.fromkeys(("numeric", "money"), number_form),
    **dict.fromkeys(("float4", "float8"), float_form),
    **dict.fromkeys(("date", "timestamp", "timestamptz"), moment_form),
    **dict.fromkeys(("time", "timetz"), clock_form),
    **dict.fromkeys(("bit", "varbit"), _bits),
    "bool": _bool,
    "interval": interval_form,
    "uuid": _uuid,
    "jsonb": _json,
    "hstore": _hstore,
    "tstzrange": _zoned_range,
}
