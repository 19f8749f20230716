"""A short history of a real server, archived and streamed, with every position known."""

import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from fixtures.stacks.native import NativeStack
from pipeline.config import PipelineConfig
from pipeline.postgres.base import base_backup
from pipeline.postgres.server.tools import Tools
from pipeline.postgres.wal.lsn import Lsn, as_record_end, segment_name
from pipeline.postgres.wal.receiver import EXPECTED_END, ExpectedEnd, flushed_record, receive
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore
from pipeline.wait import wait_until

SOON = timedelta(seconds=30)


@dataclass(frozen=True)
class Commit:
    """A transaction: its id, when its commit was recorded, and where the WAL stood after it."""

    xid: int
    time: datetime
    after: Lsn


def _same_second(moment: datetime) -> str | None:
    now = datetime.now(UTC)
    return None if int(now.timestamp()) > int(moment.timestamp()) else "still the same"


@dataclass
class Source:
    """A running server of a stack and what was done on it; `note` names each transaction."""

    stack: NativeStack
    commits: dict[str, Commit] = field(default_factory=dict)
    backups: dict[str, BackupSet] = field(default_factory=dict)

    @property
    def config(self) -> PipelineConfig:
        return self.stack.config

    @property
    def tools(self) -> Tools:
        return Tools.of(self.config.postgres)

    @property
    def data(self) -> Path:
        assert self.config.postgres.data is not None
        return self.config.postgres.data

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(**self.config.postgres.conninfo(), autocommit=True)

    def run(self, *statements: str) -> Any:  # noqa: ANN401 - whatever the last one answers
        with self.connect() as connection:
            for statement in statements:
                answer = connection.execute(statement.encode())
            row = answer.fetchone() if answer.description else None
        return row[0] if row and len(row) == 1 else row

    def prepared(self) -> "Source":
        """Make the table of notes, and one with TOAST that nobody changes."""
        self.run(
            "create table notes (id bigint generated always as identity, note text)",
            "create table documents as select n as id, repeat(md5(n::text), 200) as body,"
            " jsonb_build_object('n', n) as facts from generate_series(1, 300) n",
            "analyze",  # or the inventory knows no number of rows
        )
        return self

    def position(self) -> Lsn:
        """Where the newest record ends."""
        lsn = Lsn.parse(self.run("select pg_current_wal_insert_lsn()::text"))
        return as_record_end(lsn, 16 << 20)

    def flushed(self) -> Lsn:
        """Where the newest record ends, as soon as all of it is on disk."""
        with self.connect() as connection:
            return flushed_record(connection)[0].lsn

    def write(self, note: str) -> Commit:
        """One transaction of one row, acknowledged and flushed."""
        with self.connect() as connection:
            row = connection.execute(
                "insert into notes (note) values (%s) returning pg_current_xact_id()::text", [note]
            ).fetchone()
            assert row is not None
            found = connection.execute(
                "select pg_xact_commit_timestamp(%s::xid), pg_current_wal_insert_lsn()::text", row
            ).fetchone()
            assert found is not None
        commit = Commit(int(row[0]), found[0], as_record_end(Lsn.parse(found[1]), 16 << 20))
        self.commits[note] = commit
        return commit

    def rolled_back(self) -> None:
        """Leave an abort record, which is a place where a target may stop as well."""
        with self.connect() as connection, connection.transaction(force_rollback=True):
            connection.execute("insert into notes (note) values ('never')")

    def straddle(self, note: str) -> str:
        """Commit right after a switch of segments; return the one that was left."""
        with self.connect() as connection, connection.transaction():
            row = connection.execute(
                "insert into notes (note) values (%s) returning pg_current_xact_id()::text", [note]
            ).fetchone()
            assert row is not None
            switched = self.run("select pg_walfile_name(pg_switch_wal())")
        time = self.run(f"select pg_xact_commit_timestamp('{row[0]}'::xid)")
        self.commits[note] = Commit(int(row[0]), time, self.position())
        return str(switched)

    def back_up(self, name: str, *, incremental: bool = False, digests: bool = False) -> BackupSet:
        """Take a base backup in a second of its own: labels within one sort by chance."""
        self.next_second()
        repository = Repository(FolderStore(self.config.repository.path))
        self.backups[name] = base_backup.take(
            self.config, repository, incremental=incremental, digests=digests
        )
        return self.backups[name]

    def next_second(self) -> None:
        """Wait until the label of a new backup sorts behind all others."""
        if self.backups:
            newest = max(backup.manifest.started for backup in self.backups.values())
            wait_until("next second", lambda: _same_second(newest), within=SOON)

    def archive(self) -> str:
        """Switch segments and return the name of the one that was archived."""
        self.run("select pg_logical_emit_message(false, 'pipeline', 'switch')")  # or it is empty
        name = self.run("select pg_walfile_name(pg_switch_wal())")
        archived = self.config.repository.path / "wal" / name
        wait_until(
            f"archived {name}", lambda: None if archived.exists() else "not yet", within=SOON
        )
        return str(name)

    def expect(self, end: Lsn) -> ExpectedEnd:
        """What the receiver would write about a server that came to `end`."""
        facts = next(iter(self.backups.values())).manifest.facts
        now = self.run("select clock_timestamp()")
        expected = ExpectedEnd(facts["system_identifier"], facts["timeline"], end, now)
        expected.write(self.config.repository.path)
        return expected

    @contextmanager
    def receiver(self) -> Iterator[list[str]]:
        """Stream until the block ends, and have the expected end follow what was written before."""
        stop, told, failure = threading.Event(), list[str](), list[BaseException]()

        def body() -> None:
            try:
                receive(self.config, stop, told.append)
            except BaseException as error:  # noqa: BLE001 - raised again where it is seen
                failure.append(error)

        thread = threading.Thread(target=body)
        thread.start()
        try:
            wait_until(
                "receiver",
                lambda: None if failure or any("streaming" in t for t in told) else "not yet",
                within=SOON,
            )
            yield told
        finally:
            stop.set()
            thread.join()
        if failure:
            raise failure[0]

    def wait_expected(self, at_least: Lsn) -> None:
        """Return once the expected end has come to a position."""
        path = self.config.repository.path

        def seen() -> str | None:
            if not (path / EXPECTED_END).exists():
                return "no expected end"
            found = ExpectedEnd.read(path)
            return None if found.lsn >= at_least else f"expected end at {found.lsn}"

        wait_until(f"expected end at {at_least}", seen, within=SOON)


@dataclass(frozen=True)
class History:
    """What `lived` wrote: two backups, commits on both sides of everything, all of it archived."""

    source: Source
    moments: Mapping[str, datetime]
    segments: Mapping[str, str]
    end: Lsn

    @property
    def config(self) -> PipelineConfig:
        return self.source.config

    @property
    def repository(self) -> Path:
        return self.config.repository.path

    def elsewhere(self, repository: Path) -> PipelineConfig:
        """The configuration with a copy of the repository, and without a server beside it."""
        changes = {
            "repository": self.config.repository.model_copy(update={"path": repository}),
            "postgres": self.config.postgres.model_copy(update={"data": None}),
        }
        return self.config.model_copy(update=changes)


def lived(source: Source) -> History:
    """Write the history; `notes` holds the names of the commits in their order."""
    source.prepared()
    source.write("zero")
    source.back_up("first")
    source.write("one")
    between = source.run("select clock_timestamp()")
    source.write("two")
    source.rolled_back()
    source.run("select pg_create_restore_point('migration')")
    source.write("three")
    segments = {"switched": source.straddle("straddled")}
    source.write("four")
    segments["middle"] = source.archive()
    source.back_up("second")
    source.write("five")
    segments["behind"] = source.archive()
    source.write("six")
    source.archive()
    source.write("last")
    end = source.position()
    source.archive()
    source.expect(end)
    after = source.run("select clock_timestamp()")
    return History(source, {"between": between, "after": after}, segments, end)


def copied(repository: Path, into: Path, tools: Tools) -> Path:
    """A copy of a repository that may be damaged: files are shared until `replaced`."""
    shutil.copytree(repository, into, copy_function=_shared)
    for folder in (into, *(path for path in into.rglob("*") if path.is_dir())):
        tools.own(folder)
    return into


def _shared(path: str, into: str) -> None:
    """Link what is large; what is small may be rewritten in place."""
    (os.link if Path(path).stat().st_size > 1 << 20 else shutil.copy2)(path, into)


def segment_at(repository: Path, position: Lsn) -> Path:
    """The archived segment that holds a position of the history."""
    return repository / "wal" / segment_name(1, position)


def replaced(path: Path, content: bytes) -> None:
    """Give a file of a copied repository other content, and leave the original alone."""
    mode = path.stat()
    path.unlink()
    path.write_bytes(content)
    os.chown(path, mode.st_uid, mode.st_gid)


def flipped(path: Path, position: int) -> None:
    """Flip one bit of a file of a copied repository."""
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    replaced(path, bytes(content))
