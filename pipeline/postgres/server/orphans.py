"""Programs that outlived the process which started them, found by the folder they work in."""

import os
import signal
from datetime import timedelta
from pathlib import Path

from pipeline.postgres.server.processes import running
from pipeline.wait import wait_until


def orphans(folder: Path, program: str) -> list[int]:
    """Process ids of every run of a program that works below a folder."""
    return [each.pid for each in running(program) if each.works_below(folder)]


def end_orphans(folder: Path, program: str) -> None:
    """End them and wait for it; the caller knows by a lock that nobody waits for them any more."""
    for pid in orphans(folder, program):
        os.kill(pid, signal.SIGTERM)
    wait_until(
        f"end of orphaned {program}",
        lambda: f"still run: {left}" if (left := orphans(folder, program)) else None,
        within=timedelta(seconds=10),
    )
