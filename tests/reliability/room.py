"""A file system with little room: a tmpfs that only this test's processes see."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.repository import marker

MOUNT = 'mount -t tmpfs -o size="$1",mode=0755 tmpfs "$2" && echo mounted && exec cat'


@dataclass(frozen=True)
class Room:
    """It lies at `folder` for commands that are run `inside`, and at `seen` for the test."""

    pid: int
    folder: Path

    @property
    def seen(self) -> Path:
        return Path(f"/proc/{self.pid}/root{self.folder}")

    def inside(self, *command: str) -> list[str]:
        return ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "--", *command]

    def enlarge(self, size: str) -> None:
        remount = self.inside("mount", "-o", f"remount,size={size}", str(self.folder))
        subprocess.run(remount, check=True)

    def files(self) -> list[str]:
        """What lies in it, staging and unfinished parts too; not what marks it as a repository."""
        found = sorted(path.name for path in self.seen.rglob("*") if path.is_file())
        return [name for name in found if name not in {marker.MARKER, marker.WAL_OF}]


@contextmanager
def little_room(folder: Path, size: str) -> Iterator[Room]:
    """Mount it for as long as the block runs; where nobody may, the test is skipped and says so."""
    command = ["unshare", "--mount", "sh", "-c", MOUNT, "sh", size, str(folder)]
    folder.mkdir(exist_ok=True)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as holder:  # ends with its input
        told = holder.stdout.readline().strip() if holder.stdout else ""
        if told != "mounted":
            pytest.skip(f"a file system of its own needs root, and mounts: {told}")
        yield Room(holder.pid, folder)
    folder.rmdir()
