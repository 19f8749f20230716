"""The one way to wait: for a condition, until a deadline, with the last reason kept."""

import time
from collections.abc import Callable
from datetime import timedelta

from pipeline.errors import ServerError


def wait_until(
    what: str,
    condition: Callable[[], str | None],
    *,
    within: timedelta,
    every: timedelta = timedelta(milliseconds=50),
) -> None:
    """Return once `condition` answers None; it answers the reason for waiting otherwise.

    Raises ServerError with the last reason when `within` has passed. An exception of the condition
    ends the wait: a condition that cannot be read is not one that is merely not yet true.
    """
    deadline = time.monotonic() + within.total_seconds()
    while (reason := condition()) is not None:
        if time.monotonic() >= deadline:
            raise ServerError(
                f"{what}: not within {within.total_seconds():g} s; last seen: {reason}"
            )
        time.sleep(every.total_seconds())  # the only sleep: the poll period of a condition
