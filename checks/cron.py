"""When a schedule of a CronJob falls due: five fields, as Kubernetes reads them in UTC."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
NAMES = {
    name: number
    for names, first in (
        ("jan feb mar apr may jun jul aug sep oct nov dec", 1),
        ("sun mon tue wed thu fri sat", 0),
    )
    for number, name in enumerate(names.split(), first)
}
MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
MONTHS = 62  # days to look at: what falls due more rarely is no schedule of backups
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)


def due(schedule: str) -> Iterator[datetime]:
    """Give the moments of two months. Raises ValueError for what is no schedule."""
    words = MACROS.get(schedule, schedule).split()
    if len(words) != len(FIELDS):
        raise ValueError(f"{schedule!r} has {len(words)} fields, expected {len(FIELDS)}")
    minutes, hours, days, months, weekdays = (
        _numbers(word, *bounds) for word, bounds in zip(words, FIELDS, strict=True)
    )
    weekdays = {number % 7 for number in weekdays}
    both = words[2] != "*" and words[4] != "*"  # then either will do, as in every cron
    for number in range(MONTHS):
        day = BEGIN + timedelta(days=number)
        matches = (day.day in days, day.isoweekday() % 7 in weekdays)
        if day.month in months and (any(matches) if both else all(matches)):
            for hour in sorted(hours):
                yield from (day.replace(hour=hour, minute=minute) for minute in sorted(minutes))


def gaps(schedule: str) -> tuple[timedelta, timedelta]:
    """Give the shortest and the longest time between two moments."""
    moments = list(due(schedule))
    if len(moments) < 2:
        raise ValueError(f"{schedule!r} falls due less than twice in two months")
    found = [later - earlier for earlier, later in pairwise(moments)]
    return min(found), max(found)


def _numbers(field: str, low: int, high: int) -> set[int]:
    found = set[int]()
    for part in field.lower().split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        if first in {"*", "?"}:
            start, end = low, high
        else:
            start = NAMES[first] if first in NAMES else int(first)
            end = NAMES[last] if last in NAMES else int(last or (high if step else start))
        if not low <= start <= end <= high:
            raise ValueError(f"{field!r} is not between {low} and {high}")
        found.update(range(start, end + 1, int(step or 1)))
    return found
