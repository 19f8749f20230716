"""Where the same damage goes in each tool's repository, and what each says about it."""

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bench.cluster import Bench
from bench.peers import Peer
from bench.peers.barman import Barman
from bench.peers.core import Core
from bench.peers.pgbackrest import PgBackRest

Change = Callable[[bytes], bytes | None]
"""Content to new content; None removes the file."""


class Side(Peer, Protocol):
    """One tool's repository, to be damaged and judged."""

    def change_file(self, name: str, change: Change) -> None:
        """Change a file of the newest backup, by its name in the data folder."""

    def add_file(self, name: str) -> None:
        """Put a file into the newest backup that nobody took."""

    def stale_manifest(self) -> None:
        """Give the newest backup the manifest of the one before."""

    def replace_backups(self, other: Path) -> None:
        """Have the base backups of another repository of this tool, with its records of them."""

    def change_segment(self, name: str, change: Change) -> None:
        """Change an archived segment."""

    def agree_with_segment(self, name: str) -> None:
        """Make the tool's own digest of it, if any, as if it had come so from the server."""

    def add_history(self, name: str, content: bytes) -> None:
        """Put a timeline's history into the archive."""

    def drop_history(self, name: str) -> None:
        """Remove a timeline's history from the archive."""

    def at_rest(self) -> list[str]:
        """What the tool says is wrong without restoring."""


def changed(path: Path, change: Change) -> None:
    """Change one file in place, and leave its owner and mode alone."""
    new = change(path.read_bytes())
    if new is None:
        path.unlink()
    else:
        path.write_bytes(new)


def exchanged(folder: Path, other: Path) -> None:
    """Have the content of another folder, with its owners and modes."""
    shutil.rmtree(folder)
    copied(other, folder)


def copied(folder: Path, into: Path) -> None:
    """Copy with owners and modes, as ourselves: not all of it is open to the servers' owner."""
    subprocess.run(["/bin/cp", "-a", folder, into], check=True)


class CoreSide(Core):
    """Plain files."""

    def change_file(self, name: str, change: Change) -> None:
        changed(self.base / name, change)

    def add_file(self, name: str) -> None:
        (self.base / name).write_bytes(b"nobody took this")

    def stale_manifest(self) -> None:
        shutil.copyfile(self.repository / "base-0/backup_manifest", self.base / "backup_manifest")

    def replace_backups(self, other: Path) -> None:
        for folder in self.repository.glob("base-*"):
            exchanged(folder, other / folder.name)

    def change_segment(self, name: str, change: Change) -> None:
        changed(self.wal / name, change)

    def agree_with_segment(self, name: str) -> None:
        """There is no digest of WAL."""

    def add_history(self, name: str, content: bytes) -> None:
        (self.wal / name).write_bytes(content)

    def drop_history(self, name: str) -> None:
        (self.wal / name).unlink()

    def at_rest(self) -> list[str]:
        code, told = self.verify()
        return [last_line(told)] if code else []


class PgBackRestSide(PgBackRest):
    """Plain files too, with compression off; the digest of a segment is part of its name."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench, compression="none")

    @property
    def _labels(self) -> list[Path]:
        return sorted(path for path in (self.repository / "backup/main").glob("2*F"))

    def change_file(self, name: str, change: Change) -> None:
        changed(self._labels[-1] / "pg_data" / name, change)

    def add_file(self, name: str) -> None:
        (self._labels[-1] / "pg_data" / name).write_bytes(b"nobody took this")

    def stale_manifest(self) -> None:
        for name in ("backup.manifest", "backup.manifest.copy"):
            shutil.copyfile(self._labels[0] / name, self._labels[-1] / name)

    def replace_backups(self, other: Path) -> None:
        exchanged(self.repository / "backup/main", other / "backup/main")

    def _segment(self, name: str) -> Path:
        (path,) = self.repository.glob(f"archive/main/*/*/{name}-*")
        return path

    def change_segment(self, name: str, change: Change) -> None:
        changed(self._segment(name), change)

    def agree_with_segment(self, name: str) -> None:
        path = self._segment(name)
        digest = hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
        path.rename(path.with_name(f"{name}-{digest}"))

    def add_history(self, name: str, content: bytes) -> None:
        (folder,) = self.repository.glob("archive/main/15-*")
        (folder / name).write_bytes(content)  # unlike a segment it has no digest in its name

    def drop_history(self, name: str) -> None:
        (path,) = self.repository.glob(f"archive/main/*/{name}")
        path.unlink()

    def at_rest(self) -> list[str]:
        """Run `verify`; then `check`."""
        code, told = self.verify()
        if code:
            return [last_line(told)]
        code, told = self.check()
        return [f"check: {last_line(told)}"] if code else []


class BarmanSide(Barman):
    """Plain files below the newest backup's `data`."""

    def change_file(self, name: str, change: Change) -> None:
        changed(self.folders[-1] / "data" / name, change)

    def add_file(self, name: str) -> None:
        (self.folders[-1] / "data" / name).write_bytes(b"nobody took this")

    def stale_manifest(self) -> None:
        first, *_, last = (folder / "data/backup_manifest" for folder in self.folders)
        shutil.copyfile(first, last)

    def replace_backups(self, other: Path) -> None:
        exchanged(self.repository / "main/base", other / "main/base")

    def change_segment(self, name: str, change: Change) -> None:
        changed(self.repository / "main/wals" / name[:16] / name, change)

    def agree_with_segment(self, name: str) -> None:
        """There is no digest of WAL."""

    def add_history(self, name: str, content: bytes) -> None:
        """By its own way in, so that its catalogue knows of it."""
        (self.repository / "main/incoming" / name).write_bytes(content)
        self._bench.tools.own(self.repository / "main/incoming")
        self.take_wal()

    def drop_history(self, name: str) -> None:
        (self.repository / "main/wals" / name).unlink()

    def at_rest(self) -> list[str]:
        code, told = self.verify()
        return [last_line(told)] if code else []


def last_line(told: str) -> str:
    """The end of what a program said, for the raw record."""
    lines = [line.strip() for line in told.strip().splitlines() if line.strip()]
    return lines[-1][:200] if lines else "(no words)"
