"""Processes of this machine, told by what they execute and where they work, as the kernel says it.

A name can be anybody's, and a shell or `tail -f` may work in a data folder: neither makes it a
server. What may not be asked of a process that belongs to somebody else makes it none of ours.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_GONE = " (deleted)"  # the kernel's word behind the path of what was removed; proc(5)


@dataclass(frozen=True)
class Process:
    """A running program: its parent, and its working folder under the name that the kernel has."""

    pid: int
    parent: int
    folder: str

    def works_in(self, folder: Path) -> bool:
        """Whether that is its working folder, also if it was removed, by whatever path it came.

        By device and inode: a link, or a mount elsewhere, is another name of the same folder, and
        the same name in a container is another folder.
        """
        if self.folder == f"{folder.resolve()}{_GONE}":
            return True
        try:
            return os.path.samestat((_PROC / str(self.pid) / "cwd").stat(), folder.stat())
        except OSError:
            return False

    def works_below(self, folder: Path) -> bool:
        """Whether its working folder is that one, or inside of it."""
        return Path(self.folder.removesuffix(_GONE)).is_relative_to(folder.resolve())


def running(*programs: str) -> Iterator[Process]:
    """Every process that executes a file of one of these names."""
    for entry in _PROC.iterdir():
        try:
            pid, executable = int(entry.name), str((entry / "exe").readlink())
            if Path(executable.removesuffix(_GONE)).name in programs:
                state = (entry / "stat").read_text().rpartition(")")[2].split()
                yield Process(pid, int(state[1]), str((entry / "cwd").readlink()))
        except (OSError, ValueError):
            continue  # not a process, not ours to see, or gone meanwhile
