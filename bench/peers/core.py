"""PostgreSQL's own programs and `cp`: what most homes start with."""

import shutil
from pathlib import Path

from bench.cluster import Bench


class Core:
    """A plain pg_basebackup and a folder of WAL."""

    name = "pg_verifybackup"

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.repository = bench.path("core")
        self.wal = bench.path("core/wal")

    @property
    def base(self) -> Path:
        """The newest backup."""
        return max(self.repository.glob("base-*"))

    def archive_lines(self) -> list[str]:
        return [f'test ! -f {self.wal}/$(basename "$1") && cp "$1" {self.wal}/']

    def prepare(self) -> None:
        """Nothing: folders are enough."""

    def back_up(self) -> None:
        into = self.repository / f"base-{len(list(self.repository.glob('base-*')))}"
        options = ("--checkpoint=fast", "--wal-method=fetch", f"--pgdata={into}")
        program = self._bench.programs.postgres / "pg_basebackup"
        self._bench.run(program, *options, *self._bench.where)

    def expire(self) -> None:
        for folder in self.repository.glob("base-*"):
            if folder != self.base:
                shutil.rmtree(folder)

    def verify(self) -> tuple[int, str]:
        program = self._bench.programs.postgres / "pg_verifybackup"
        done = self._bench.run(program, self.base, check=False)
        return done.returncode, done.stdout

    def restore(self, into: Path) -> None:
        shutil.rmtree(into, ignore_errors=True)
        self._bench.run("cp", "-a", self.base, into)
        with (into / "postgresql.auto.conf").open("a") as conf:
            conf.write(f"restore_command = 'cp {self.wal}/%f %p'\n")
        (into / "recovery.signal").touch()
        self._bench.tools.own(into)
