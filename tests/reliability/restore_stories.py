"""Restores that are killed: half of one is never taken for the whole."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import psycopg

from pipeline.postgres.server.server import LocalServer
from pipeline.wait import wait_until
from tests.recovery.history import SOON
from tests.reliability.rounds import Pipeline, Story


@dataclass
class Restore(Story):
    """A recovery's own steps on a scratch folder: unpack, replay, promote; resumed by its name."""

    pipeline: Pipeline
    folder: Path
    notes: int
    number: int = 0

    @property
    def _data(self) -> Path:
        return self.folder / f"data-{self.number}"

    def command(self) -> list[str]:
        words = [str(self.pipeline.configuration), str(self._data), f"restore-{self.number}"]
        return [sys.executable, "-m", "tests.reliability.recovering", *words]

    def prove(self) -> None:
        """A folder under the final name is one whose every file was proven."""
        if self._data.exists():
            assert (self._data / "PG_VERSION").exists()
            assert not (self._data / "backup_manifest").exists()

    def complete(self, out: str) -> None:
        assert out.split()[-2:] == ["2", str(self.notes)], out
        server = LocalServer(self._data, self.pipeline.source.tools, self.folder / "log")
        assert server.pid() is None, "a killed recovery left its server"
        assert [path.name for path in self.folder.iterdir()] == [self._data.name]
        shutil.rmtree(self._data)
        self.number += 1


@dataclass
class RestoreDatabase(Story):
    """`pipeline restore database`: all of it in one transaction, each time into a new database."""

    pipeline: Pipeline
    tables: int
    number: int = 0

    @property
    def _name(self) -> str:
        return f"restored_{self.number}"

    def command(self) -> list[str]:
        source = self.pipeline.source
        source.run(f"drop database if exists {self._name} with (force)")
        self.number += 1
        source.run(f"drop database if exists {self._name}")  # another story left its last one
        source.run(f"create database {self._name} template template0")
        return self.pipeline.command("restore", "database", "--into", self._name)

    def prove(self) -> None:
        """Nothing or everything, once the program that outlived its parent is done."""
        source = self.pipeline.source
        busy = f"select count(*) from pg_stat_activity where datname = '{self._name}'"
        wait_until("its end", lambda: f"{n} busy" if (n := source.run(busy)) else None, within=SOON)
        there = source.config.postgres.conninfo(dbname=self._name)
        with psycopg.connect(**there) as connection:
            row = connection.execute("select count(*) from pg_stat_user_tables").fetchone()
        assert row is not None
        assert row[0] in {0, self.tables}

    def complete(self, out: str) -> None:
        assert "proven: " in out, out
        self.prove()
