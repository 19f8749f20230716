"""Waiting ends with the condition, or with the last reason why not."""

from datetime import timedelta

import pytest

from pipeline.errors import ServerError
from pipeline.wait import telling, wait_until

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


def test_who_waits_long_is_told_for_what_and_where_the_log_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.wait._QUIET", timedelta(0))
    lines: list[str] = []
    reasons = iter(["starting", "replaying", "replaying", None])
    with telling(lines.append):
        wait_until("server", lambda: next(reasons), within=SOON, every=OFTEN, log="/var/log/it")
    assert lines == ["  waiting for server, 0 of 10 s: starting; its log: /var/log/it"]
    wait_until("server", lambda: None, within=NEVER)
    assert len(lines) == 1


def test_the_log_is_named_where_the_wait_ended_in_vain() -> None:
    with pytest.raises(ServerError, match=r"last seen: down; its log: /var/log/it$"):
        wait_until("server", lambda: "down", within=NEVER, log="/var/log/it")
