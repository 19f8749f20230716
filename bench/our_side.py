"""This suite's repository, to be damaged, and what its checks and its recovery say of it."""

from collections.abc import Hashable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import psycopg

from bench.peers.ours import Ours
from bench.sides import Change, changed, exchanged
from checks import rules
from checks.check import Check, Outcome
from checks.subjects import BackupRepository, BaseBackup, WalArchive
from fixtures.faults import backups
from fixtures.material import receiver_speaks
from fixtures.scratch import Scratch
from pipeline.config import PipelineConfig
from pipeline.errors import RestoreError
from pipeline.postgres.base.base_backup import KIND
from pipeline.postgres.server.amcheck import amcheck
from pipeline.repository.sets import MANIFEST, Repository
from pipeline.repository.store import FolderStore


class OurSide(Ours):
    """Files are inside an object; it and its manifest are sealed anew: only content tells."""

    @property
    def _config(self) -> PipelineConfig:
        return self._bench.config

    @property
    def _scratch(self) -> Scratch[BaseBackup]:
        return Scratch(BaseBackup, self._bench.folder, self._config, "")

    def dump(self) -> None:
        """Take the other kind of backup that the checks ask for."""
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
        backups.repack(
            self._scratch, lambda _name, content: content, added={name: b"nobody took this"}
        )

    def stale_manifest(self) -> None:
        first, *_, last = (folder / MANIFEST for folder in self._sets)
        last.write_bytes(first.read_bytes())

    def replace_backups(self, other: Path) -> None:
        exchanged(self.repository / "sets/base", other / "sets/base")

    def change_segment(self, name: str, change: Change) -> None:
        changed(self.repository / "wal" / name, change)

    def agree_with_segment(self, name: str) -> None:
        """Nothing is noted of a segment when it comes: what it says must be right."""

    def add_history(self, name: str, content: bytes) -> None:
        (self.repository / "wal" / name).write_bytes(content)

    def drop_history(self, name: str) -> None:
        (self.repository / "wal" / name).unlink()

    def restore(self, into: Path) -> None:
        """Run the steps of `pipeline recover postgres` up to amcheck's, on a server of ours."""
        super().restore(into)
        with self._bench.restored(into) as conninfo:
            self._bench.promoted(conninfo)
            with psycopg.connect(**conninfo, autocommit=True) as connection:
                broken, unexamined, (_, heaps) = amcheck(connection)
        if broken:
            raise RestoreError("; ".join(broken))
        if not heaps:  # no refusal, but a bench that does not do what its document says
            raise LookupError("; ".join(unexamined))

    def at_rest(self) -> list[str]:
        """Run the checks that read a repository."""
        receiver_speaks(self.repository)
        kinds = {BackupRepository, BaseBackup, WalArchive}
        return list(complaints(self._config, (c for c in rules.CATALOGUE if c.on in kinds)))


def complaints(config: PipelineConfig, checks: Iterable[Check[Any]]) -> Iterator[str]:
    """What checks say of a repository, each problem or trouble behind the check's name."""
    opened = cache(lambda kind: kind.of(config))  # one reading serves all its checks
    for check in checks:
        seen = check.run(partial(opened, cast("Hashable", check.on)))
        if seen.outcome in {Outcome.FAIL, Outcome.UNKNOWN}:
            for problem in seen.problems:
                yield f"{check.id}: {problem.subject}: {problem.problem}"
            if seen.trouble is not None:
                yield f"{check.id}: {seen.trouble}"
