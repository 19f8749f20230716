"""Waiting ends with the condition, or with the last reason why not."""

from datetime import timedelta

import pytest

from pipeline.errors import ServerError
from pipeline.wait import wait_until

SOON, NEVER = timedelta(seconds=10), timedelta(0)
OFTEN = timedelta(milliseconds=1)


def test_it_returns_as_soon_as_nothing_is_left_to_wait_for() -> None:
    reasons = iter(["starting", "replaying", None])
    wait_until("server", lambda: next(reasons), within=SOON, every=OFTEN)
    assert list(reasons) == []


def test_a_condition_that_holds_is_seen_even_without_time_to_wait() -> None:
    wait_until("server", lambda: None, within=NEVER)


def test_the_last_reason_is_told() -> None:
    reasons = iter(["starting", "replaying 0/3000028"])
    last = iter(lambda: next(reasons, "replaying 0/3000028"), None)
    told = r"^server: not within 0\.05 s; last seen: replaying 0/3000028$"
    with pytest.raises(ServerError, match=told):
        wait_until("server", lambda: next(last), within=timedelta(seconds=0.05), every=OFTEN)


def test_a_condition_that_cannot_be_read_ends_the_wait() -> None:
    def unreadable() -> str | None:
        raise PermissionError("no")

    with pytest.raises(PermissionError):
        wait_until("server", unreadable, within=SOON)
