"""Where the same damage goes in each tool's repository, and what each says about it."""

import hashlib
import shutil
from collections.abc import Callable, Hashable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol, cast

from bench.cluster import Bench
from bench.peers import Peer
from bench.peers.barman import Barman
from bench.peers.core import Core
from bench.peers.ours import Ours
from bench.peers.pgbackrest import PgBackRest
from checks import rules
from checks.check import Outcome
from checks.subjects import BackupRepository, BaseBackup, WalArchive
from fixtures.faults import backups
from fixtures.scratch import Scratch
from pipeline.config import PipelineConfig
from pipeline.postgres.base_backup import KIND
from pipeline.postgres.receiver import ExpectedEnd
from pipeline.repository import MANIFEST, Repository
from pipeline.store import FolderStore

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

    def change_segment(self, name: str, change: Change, *, as_archived: bool) -> None:
        """Change an archived segment; `as_archived`: as if it had come so from the server."""

    def add_history(self, name: str, content: bytes) -> None:
        """Put a timeline's history into the archive."""

    def at_rest(self) -> str | None:
        """What the tool says is wrong without restoring, or None."""


def changed(path: Path, change: Change) -> None:
    """Change one file in place, and leave its owner and mode alone."""
    new = change(path.read_bytes())
    if new is None:
        path.unlink()
    else:
        path.write_bytes(new)


class CoreSide(Core):
    """Plain files."""

    def change_file(self, name: str, change: Change) -> None:
        changed(self.base / name, change)

    def add_file(self, name: str) -> None:
        (self.base / name).write_bytes(b"nobody took this")

    def stale_manifest(self) -> None:
        shutil.copyfile(self.repository / "base-0/backup_manifest", self.base / "backup_manifest")

    def change_segment(self, name: str, change: Change, *, as_archived: bool) -> None:  # noqa: ARG002 - no digest
        changed(self.wal / name, change)

    def add_history(self, name: str, content: bytes) -> None:
        (self.wal / name).write_bytes(content)

    def at_rest(self) -> str | None:
        code, told = self.verify()
        return last_line(told) if code else None


class PgBackRestSide(PgBackRest):
    """Plain files too, with compression off; the digest of a segment is part of its name."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench, compression="none", keep=2)

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

    def change_segment(self, name: str, change: Change, *, as_archived: bool) -> None:
        (path,) = self.repository.glob(f"archive/main/*/*/{name}-*")
        changed(path, change)
        if as_archived and path.exists():
            digest = hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
            path.rename(path.with_name(f"{name}-{digest}"))

    def add_history(self, name: str, content: bytes) -> None:
        (folder,) = self.repository.glob("archive/main/15-*")
        digest = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        (folder / f"{name}-{digest}").write_bytes(content)

    def at_rest(self) -> str | None:
        """Judge `verify` by its words, because its exit code says nothing; then `check`."""
        code, told = self.verify()
        if code or "status: error" in told or "ERROR" in told:
            return last_line(told)
        code, told = self.check()
        return f"check: {last_line(told)}" if code else None


class BarmanSide(Barman):
    """Plain files below the newest backup's `data`."""

    @property
    def _folders(self) -> list[Path]:
        return sorted((self.repository / "main/base").iterdir())

    def change_file(self, name: str, change: Change) -> None:
        changed(self._folders[-1] / "data" / name, change)

    def add_file(self, name: str) -> None:
        (self._folders[-1] / "data" / name).write_bytes(b"nobody took this")

    def stale_manifest(self) -> None:
        first, *_, last = (folder / "data/backup_manifest" for folder in self._folders)
        shutil.copyfile(first, last)

    def change_segment(self, name: str, change: Change, *, as_archived: bool) -> None:  # noqa: ARG002 - no digest
        changed(self.repository / "main/wals" / name[:16] / name, change)

    def add_history(self, name: str, content: bytes) -> None:
        """By its own way in, so that its catalogue knows of it."""
        (self.repository / "main/incoming" / name).write_bytes(content)
        self._bench.tools.own(self.repository / "main/incoming")
        self.take_wal()

    def at_rest(self) -> str | None:
        code, told = self.verify()
        return last_line(told) if code else None


class OurSide(Ours):
    """Files are inside an object; it and its manifest are sealed anew: only content tells."""

    @property
    def _config(self) -> PipelineConfig:
        return self._bench.config

    @property
    def _scratch(self) -> Scratch[BaseBackup]:
        return Scratch(BaseBackup, self._bench.folder, self._config, "")

    def _opened(self, kind: Any) -> Any:  # noqa: ANN401 - a kind of subject, and one of it
        return kind.of(self._config)

    def back_up(self) -> None:
        """One of each kind that the checks ask for."""
        super().back_up()
        code, told = self.run("backup", "logical")
        if code:
            raise RuntimeError(told)

    @property
    def _sets(self) -> list[Path]:
        repository = Repository(FolderStore(self.repository))
        return [self.repository / found.prefix for found in repository.sets(KIND)]

    def change_file(self, name: str, change: Change) -> None:
        backups.repack(
            self._scratch, lambda each, content: change(content) if each == name else content
        )

    def add_file(self, name: str) -> None:
        (self._sets[-1] / Path(name).name).write_bytes(b"nobody took this")

    def stale_manifest(self) -> None:
        first, *_, last = (folder / MANIFEST for folder in self._sets)
        shutil.copyfile(first, last)

    def change_segment(self, name: str, change: Change, *, as_archived: bool) -> None:  # noqa: ARG002 - no digest
        changed(self.repository / "wal" / name, change)

    def add_history(self, name: str, content: bytes) -> None:
        (self.repository / "wal" / name).write_bytes(content)

    def at_rest(self) -> str | None:
        """Run the checks that read a repository; the first that does not hold speaks."""
        end = ExpectedEnd.read(self.repository)  # the receiver would have written it a second ago
        replace(end, time=datetime.now(UTC)).write(self.repository)
        opened = cache(self._opened)  # one reading serves all its checks
        for check in rules.CATALOGUE:
            if check.on not in {BackupRepository, BaseBackup, WalArchive}:
                continue
            seen = check.run(partial(opened, cast("Hashable", check.on)))
            if seen.outcome in {Outcome.FAIL, Outcome.UNKNOWN}:
                problem = seen.problems[0] if seen.problems else None
                told = f"{problem.subject}: {problem.problem}" if problem else seen.trouble
                return f"{check.id}: {told}"
        return None


def last_line(told: str) -> str:
    """The end of what a program said, for the raw record."""
    lines = [line.strip() for line in told.strip().splitlines() if line.strip()]
    return lines[-1][:200] if lines else "(no words)"
