"""What a value of JSON without a schema must be, by its column and the connector's modes."""

from collections.abc import Mapping
from typing import Any

from pipeline.cdc.forms import CONNECT, DATA, TIME, Column, Shape

MILLISECONDS = 3
"""Digits of a second up to which the adaptive modes count in milliseconds."""
_PLAIN = {
    **dict.fromkeys(("int2", "int4", "int8", "oid"), "int"),
    **dict.fromkeys(("float4", "float8"), "float"),
    "bool": "boolean",
}


def bare_shape(column: Column, modes: Mapping[str, str], value: Any) -> Shape:  # noqa: ANN401 - JSON
    """Tell what Debezium would have written into a schema, had the converter kept one."""
    if column.element is not None and isinstance(value, list):
        first = next((one for one in value if one is not None), None)
        return Shape("array", items=bare_shape(column.element, modes, first))
    if column.kind in {"numeric", "money"}:
        return _number(column, modes.get("decimal.handling.mode", "precise"), value)
    if column.kind in {"date", "timestamp", "time"} and isinstance(value, int):
        return Shape("int", _unit(column, modes.get("time.precision.mode", "adaptive")))
    if column.kind == "bytea" and modes.get("binary.handling.mode", "bytes") == "bytes":
        return Shape("bytes")
    if isinstance(value, dict | bool):
        return Shape("map" if isinstance(value, dict) else "boolean")
    return _NAMED.get((column.kind, type(value))) or Shape(_PLAIN.get(column.kind, "string"))


_NAMED = {
    ("interval", int): Shape("int", f"{TIME}MicroDuration"),
    ("interval", str): Shape("string", f"{TIME}Interval"),
    ("bit", str): Shape("bytes", f"{DATA}Bits"),
    ("varbit", str): Shape("bytes", f"{DATA}Bits"),
}


def _number(column: Column, mode: str, value: object) -> Shape:
    if isinstance(value, dict):
        return Shape("struct", f"{DATA}VariableScaleDecimal")
    if mode == "double":
        return Shape("double")
    if mode == "precise" and isinstance(value, str):
        scale = 2 if column.kind == "money" else column.scale
        return Shape("bytes", f"{CONNECT}Decimal", scale)
    return Shape("string")  # also what decimal.format=NUMERIC of the converter makes a number


def _unit(column: Column, mode: str) -> str:
    """Name the unit that a count is of: date in days, and the rest by the mode."""
    if column.kind == "date":
        return f"{TIME}Date"
    whole = "Timestamp" if column.kind == "timestamp" else "Time"
    coarse = column.digits is not None and column.digits <= MILLISECONDS
    if mode == "adaptive_time_microseconds":
        coarse = coarse and column.kind == "timestamp"
    elif mode in {"microseconds", "nanoseconds"}:
        coarse = False
    if mode == "connect" or coarse:
        return f"{TIME}{whole}"
    return f"{TIME}{'Nano' if mode == 'nanoseconds' else 'Micro'}{whole}"
