"""Programs that outlived the process which started them, found by the folder they work in."""

import os
import signal
from datetime import timedelta
from pathlib import Path

from pipeline.wait import wait_until

_COMM = 15  # characters that the kernel keeps of a program's name; proc(5)


def orphans(folder: Path, program: str) -> list[int]:
    """Process ids of every run of a program that works below a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            inside = (entry / "cwd").readlink().is_relative_to(folder.resolve())
            if inside and (entry / "comm").read_text().strip() == program[:_COMM]:
                found.append(int(entry.name))
        except (OSError, ValueError):
            continue  # not a process, not ours to see, or gone meanwhile
    return found


def end_orphans(folder: Path, program: str) -> None:
    """End them and wait for it; the caller knows by a lock that nobody waits for them any more."""
    for pid in orphans(folder, program):
        os.kill(pid, signal.SIGTERM)
    wait_until(
        f"end of orphaned {program}",
        lambda: f"still run: {left}" if (left := orphans(folder, program)) else None,
        within=timedelta(seconds=10),
    )
