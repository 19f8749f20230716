"""The one way to wait: for a condition, until a deadline, with the last reason kept and told."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta

from pipeline.errors import ServerError

_QUIET = timedelta(seconds=5)
_AGAIN = timedelta(seconds=15)
_listening: ContextVar[Callable[[str], None] | None] = ContextVar("_listening", default=None)


@contextmanager
def telling(progress: Callable[[str], None]) -> Iterator[None]:
    """Have every wait within say what it waits for, once it takes longer than some seconds."""
    token = _listening.set(progress)
    try:
        yield
    finally:
        _listening.reset(token)


def wait_until(
    what: str,
    condition: Callable[[], str | None],
    *,
    within: timedelta,
    every: timedelta = timedelta(milliseconds=50),
    log: object = None,
) -> None:
    """Return once `condition` answers None; it answers the reason for waiting otherwise.

    `log` is where more can be read, mostly a file's path. Raises ServerError with the last reason
    when `within` has passed. An exception of the condition ends the wait: a condition that cannot
    be read is not one that is merely not yet true.
    """
    limit, where = within.total_seconds(), f"; its log: {log}" if log else ""
    began, tell = time.monotonic(), _listening.get()
    told = began + _QUIET.total_seconds()
    while (reason := condition()) is not None:
        now = time.monotonic()
        if now >= began + limit:
            raise ServerError(f"{what}: not within {limit:g} s; last seen: {reason}{where}")
        if tell is not None and now >= told:
            tell(f"  waiting for {what}, {now - began:.0f} of {limit:.0f} s: {reason}{where}")
            told = now + _AGAIN.total_seconds()
        time.sleep(every.total_seconds())  # the only sleep: the poll period of a condition
