"""Schedules fall due as Kubernetes has them."""

from datetime import timedelta

import pytest

from checks.cron import due, gaps

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("schedule", "shortest", "longest"),
    [
        ("0 2 * * *", DAY, DAY),
        ("@daily", DAY, DAY),
        ("0 5 * * 0", 7 * DAY, 7 * DAY),
        ("0 5 * * 7", 7 * DAY, 7 * DAY),
        ("0 5 * * sun", 7 * DAY, 7 * DAY),
        ("*/15 * * * *", DAY / 96, DAY / 96),
        ("0 3 1 * *", 29 * DAY, 31 * DAY),
        ("0 0 * * mon-fri", DAY, 3 * DAY),
        ("0 0 1 * 1", 3 * DAY, 7 * DAY),  # either will do
    ],
)
def test_gaps(schedule: str, shortest: timedelta, longest: timedelta) -> None:
    assert gaps(schedule) == (shortest, longest)


@pytest.mark.parametrize(
    ("schedule", "why"),
    [
        ("", "0 fields"),
        ("0 2 * *", "4 fields"),
        ("99 3 * * *", "between 0 and 59"),
        ("0 24 * * *", "between 0 and 23"),
        ("a * * * *", "invalid literal"),
        ("5-1 * * * *", "between 0 and 59"),
        ("0 0 30 2 *", "less than twice"),
    ],
)
def test_what_is_no_schedule_is_refused(schedule: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        gaps(schedule)


def test_the_first_moments() -> None:
    assert [f"{moment:%d %H:%M}" for moment in due("30 4 1,15 * *")][:2] == ["01 04:30", "15 04:30"]
