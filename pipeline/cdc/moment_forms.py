"""Dates, times of day, moments and spans as an event has them, and as PostgreSQL prints them."""

from collections.abc import Callable, Hashable
from dataclasses import replace

from pipeline.cdc.forms import CONNECT, TIME, Column, Form, Shape
from pipeline.cdc.moments import DAY, MONTH, Moment, clock, interval, moment

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


def moment_form(column: Column, shape: Shape) -> Form | None:
    """Compare dates and timestamps, by time.precision.mode."""
    made = _instant(column, shape, moment)
    if made is None or column.kind != "date":
        return made
    return replace(made, otherwise=lambda text: _era_lost(made, text))


def _era_lost(made: Form, text: str) -> tuple[Hashable, ...]:
    """A snapshot has java.sql.Date make a date of our era of one before it."""
    return (made.table(text.removesuffix(" BC")),) if text.endswith(" BC") else ()


def clock_form(column: Column, shape: Shape) -> Form | None:
    """Compare times of day, by time.precision.mode."""
    return _instant(column, shape, clock)


def interval_form(_column: Column, shape: Shape) -> Form | None:
    """Compare intervals, by interval.handling.mode."""
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
