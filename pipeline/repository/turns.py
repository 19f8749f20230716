"""One at a time: whatever writes sets to a repository, or removes some, waits for its turn.

The kernel keeps the lock, so that it ends with its holder, however that ends; between machines that
share a folder NFS does the same (flock(2), since Linux 2.6.12).
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from pipeline.repository.marker import MARKER
from pipeline.wait import wait_until

LONGEST = timedelta(hours=6)
"""A first base backup may take hours, and the jobs after it lose nothing by waiting."""
PAUSE = timedelta(milliseconds=200)


@contextmanager
def turn(root: str, within: timedelta | None = None) -> Iterator[None]:
    """Hold the repository; raises ServerError where another one holds it for too long."""
    path = f"{root}/{MARKER}"
    try:
        descriptor = os.open(path, os.O_RDWR)  # NFS locks only what can be written to
    except PermissionError:
        descriptor = os.open(path, os.O_RDONLY)
    try:
        wait_until(
            f"a turn at {root}",
            lambda: _taken(descriptor),
            within=within or LONGEST,
            every=PAUSE,
        )
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> str | None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "another backup or retention is at work"
    return None
