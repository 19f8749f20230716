"""Dates, times and intervals as text, PostgreSQL's and Java's, as whole numbers.

Python's own types end at the year 9999 and know neither BC nor 24:00, which PostgreSQL stores.
"""

import re

SECOND = 1_000_000
DAY = 86_400 * SECOND
MONTH = 30 * DAY
"""What PostgreSQL compares intervals by (interval_cmp_value): a month of 30 days of 24 hours."""
INFINITE = ("infinity", "-infinity")
Moment = int | str
"""Microseconds since 1970, or one of INFINITE."""

_ZONE = r"(?P<zone>Z|(?P<sign>[+-])(?P<zh>\d\d)(?::?(?P<zm>\d\d))?(?::?(?P<zs>\d\d))?)?"
_TIME = r"(?P<h>\d\d):(?P<m>\d\d)(?::(?P<s>\d\d)(?:\.(?P<fraction>\d+))?)?"
_CLOCK = re.compile(_TIME + _ZONE)
_MOMENT = re.compile(
    rf"(?P<year>[+-]?\d+)-(?P<month>\d\d)-(?P<day>\d\d)(?:[ T]{_TIME})?{_ZONE}(?P<bc> BC)?"
)
_INTERVAL = re.compile(
    r"P(?:(?P<years>[+-]?\d+)Y)?(?:(?P<months>[+-]?\d+)M)?(?:(?P<days>[+-]?\d+)D)?"
    r"(?:T(?:(?P<h>[+-]?\d+)H)?(?:(?P<m>[+-]?\d+)M)?(?:(?P<s>[+-]?\d*(?:\.\d*)?)S)?)?"
)


def moment(text: str) -> Moment:
    """Read a date or a timestamp; without a zone it counts as UTC. ValueError when it is none."""
    if text in INFINITE:
        return text
    found = _MOMENT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is neither a date nor a timestamp")
    year = 1 - int(found["year"]) if found["bc"] else int(found["year"])
    days = _days(year, int(found["month"]), int(found["day"]))
    return days * DAY + (_of_day(found) if found["h"] else 0) - _zone(found)


def clock(text: str) -> int:
    """Read a time of day as microseconds, at UTC where it has a zone."""
    found = _CLOCK.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a time of day")
    return (_of_day(found) - _zone(found)) % DAY if found["zone"] else _of_day(found)


def interval(text: str) -> tuple[int, int, int]:
    """Read an interval of ISO 8601 as months, days and microseconds."""
    found = _INTERVAL.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not an interval")
    months, days = (12 * _int(found["years"]) + _int(found["months"]), _int(found["days"]))
    seconds = found["s"] or "0"
    whole, _, fraction = seconds.partition(".")
    micros = abs(int(whole or 0)) * SECOND + _micros(fraction)
    minutes = 60 * _int(found["h"]) + _int(found["m"])
    return months, days, minutes * 60 * SECOND + (-micros if seconds[0] == "-" else micros)


def _int(text: str | None) -> int:
    return int(text or 0)


def _micros(fraction: str | None) -> int:
    return int((fraction or "")[:6].ljust(6, "0"))


def _of_day(found: re.Match[str]) -> int:
    minutes = 60 * int(found["h"]) + int(found["m"])
    return (60 * minutes + _int(found["s"])) * SECOND + _micros(found["fraction"])


def _zone(found: re.Match[str]) -> int:
    if not found["sign"]:
        return 0
    minutes = 60 * int(found["zh"]) + _int(found["zm"])
    micros = (60 * minutes + _int(found["zs"])) * SECOND
    return -micros if found["sign"] == "-" else micros


def _days(year: int, month: int, day: int) -> int:
    """Count the days since 1970 in the proleptic Gregorian calendar, as PostgreSQL does."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
