"""Numbers as an event has them, and as PostgreSQL prints them."""

import struct
from collections.abc import Callable, Hashable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from pipeline.cdc.forms import CONNECT, DATA, Column, Form, Shape

EXACT_IN_DOUBLE = 15
"""Decimal digits that survive in a double (DBL_DIG)."""


def number_form(column: Column, shape: Shape) -> Form | None:
    """Compare numeric and money, by decimal.handling.mode."""
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


def integer_form(_column: Column, shape: Shape) -> Form | None:
    """Compare whole numbers, which events have in one way only."""
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


def float_form(column: Column, shape: Shape) -> Form | None:
    """Compare floats as they are after they were rounded to their own width."""
    if shape.type not in {"float", "double"} or shape.name:
        return None
    read = _single if column.kind == "float4" else _double
    return Form(column.kind, read, read)
