"""What checks examine: backups, the repository, the WAL archive, the source server."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, LiteralString, Protocol, Self

import psycopg
from psycopg.rows import dict_row

from checks import logical_dump
from checks.check import Observation
from checks.contents import Contents, read_anew, read_once
from pipeline.config import PipelineConfig, PlanConfig
from pipeline.errors import RestoreError
from pipeline.postgres.base import base_backup, chain
from pipeline.postgres.logical import logical
from pipeline.postgres.server.session import connect
from pipeline.postgres.server.tools import Tools
from pipeline.postgres.wal.lsn import Lsn, is_segment, segment_start, segments_between
from pipeline.postgres.wal.receiver import ExpectedEnd
from pipeline.postgres.wal.segments import MergedWal, reading_view
from pipeline.postgres.wal.timelines import Span, lineage
from pipeline.repository.kinds import newest
from pipeline.repository.sets import BackupSet, Manifest, Repository
from pipeline.repository.store import FolderStore, StoredObject

# a database whose removal was cut off has a limit of -2, and takes no connection (dbcommands.c)
DATABASES: LiteralString = """
    select datname from pg_database
     where datallowconn and not datistemplate and datconnlimit <> -2
     order by datname <> %s, datname
"""


@dataclass(frozen=True)
class BackupRepository:
    """The folder that holds backup sets and the WAL archive."""

    live: ClassVar[bool] = False
    path: Path
    plan: PlanConfig = field(default_factory=PlanConfig)
    may_shrink: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: PipelineConfig) -> Self:
        return cls(config.repository.path, config.plan, config.checks.may_shrink)

    @property
    def sets(self) -> Repository:
        return Repository(FolderStore(self.path))


@dataclass(frozen=True)
class BaseBackup:
    """The newest base backup, every byte of it, and of the sets that it builds on.

    `notes` is a folder where workers of a session share what one of them read.
    """

    live: ClassVar[bool] = False
    backup: BackupSet
    tools: Tools
    notes: Path | None = None

    @classmethod
    def of(cls, config: PipelineConfig) -> Self:
        latest = newest(BackupRepository.of(config).sets, base_backup.KIND)
        return cls(latest, Tools.of(config.postgres))

    def shared_in(self, notes: Path) -> Self:
        """The same backup, read once over all workers."""
        return replace(self, notes=notes)

    @property
    def manifest(self) -> Manifest:
        return self.backup.manifest

    @property
    def facts(self) -> dict[str, Any]:
        return self.manifest.facts

    @cached_property
    def contents(self) -> Contents:
        return read_anew(self.backup) if self.notes is None else read_once(self.backup, self.notes)

    @property
    def start(self) -> Lsn:
        """Where its replay starts: what is older is in its files."""
        return Lsn.parse(self.facts["start_lsn"])

    @cached_property
    def below(self) -> "BaseBackup | None":
        """What an incremental backup builds on; None below a full one.

        Raises RestoreError naming that set where it is gone, bad or another one.
        """
        parent = chain.parent(self.backup)
        return None if parent is None else BaseBackup(parent, self.tools, self.notes)

    def links(self) -> "Iterator[BaseBackup]":
        """Itself, then what it builds on, down to the full one.

        Raises RestoreError where the chain is broken, behind the sets that were found.
        """
        link: BaseBackup | None = self
        while link is not None:
            yield link
            link = link.below


@dataclass(frozen=True)
class LogicalBackup:
    """The newest logical backup of a whole database: pg_dump's own format, and the roles."""

    live: ClassVar[bool] = False
    restores: ClassVar[bool] = True
    config: PipelineConfig
    backup: BackupSet
    tools: Tools

    @classmethod
    def of(cls, config: PipelineConfig) -> Self:
        latest = newest(BackupRepository.of(config).sets, logical.KIND)
        return cls(config, latest, Tools.of(config.postgres))

    @classmethod
    def kept(cls, config: PipelineConfig) -> Iterator[Self]:
        """Every one that is kept, newest first."""
        sets = BackupRepository.of(config).sets
        for label in reversed(sets.labels(logical.KIND)):
            backup = sets.get(label)
            if backup.manifest.facts.get("scope") in {logical_dump.WHOLE, None}:
                yield cls(config, backup, Tools.of(config.postgres))

    @property
    def facts(self) -> dict[str, Any]:
        return self.backup.manifest.facts

    def object(self, name: str) -> StoredObject | None:
        """One of the objects that the manifest lists, by its last name."""
        listed = self.backup.manifest.objects
        return next((entry for entry in listed if entry.key.endswith(f"/{name}")), None)

    @cached_property
    def found(self) -> dict[str, tuple[int, str]]:
        """Size and digest of each object that is there, read once."""
        return logical_dump.sizes_and_digests(self.backup)

    @cached_property
    def dump(self) -> logical_dump.Dump:
        """What pg_restore tells of the dump after it read all of it."""
        return logical_dump.read_through(self.backup, self.tools)


@dataclass(frozen=True)
class WalArchive:
    """The archived WAL, from the oldest base backup that it can carry on to the expected end."""

    live: ClassVar[bool] = False
    repository: Path
    tools: Tools

    @classmethod
    def of(cls, config: PipelineConfig) -> Self:
        return cls(config.repository.path, Tools.of(config.postgres))

    @cached_property
    def end(self) -> ExpectedEnd:
        return ExpectedEnd.read(self.repository)

    def bases(self) -> Iterator[BackupSet]:
        """Base backups of the repository, oldest first."""
        return Repository(FolderStore(self.repository)).sets(base_backup.KIND)

    @cached_property
    def folders(self) -> list[Path]:
        """Folders of finished segments; what a recovery salvaged is older than its names say."""
        found = [self.repository / "wal", *sorted(self.repository.glob("stream/*"))]
        return [folder for folder in found if folder.is_dir()]

    @cached_property
    def spans(self) -> list[Span]:
        """The timelines that lead to the expected end."""
        return lineage(self.end.timeline, self.folders)

    @cached_property
    def base(self) -> Manifest:
        """The oldest base backup on this lineage: from there on every moment can be reached."""
        ends = {span.timeline: span.end for span in self.spans}
        for backup in self.bases():
            facts = backup.manifest.facts
            if facts["timeline"] not in ends:
                continue  # a branch that a recovery left
            end = ends[facts["timeline"]]
            if end is None or Lsn.parse(facts["end_lsn"]) <= end:
                return backup.manifest
        raise RestoreError(f"no base backup leads to timeline {self.end.timeline}")

    @property
    def segment_size(self) -> int:
        return int(self.base.facts["wal_segment_size"])

    @property
    def start(self) -> Lsn:
        return Lsn.parse(self.base.facts["start_lsn"])

    @property
    def whole_until(self) -> Lsn:
        """The segment of the expected end is still being written; those before it are whole."""
        return segment_start(self.end.lsn, self.segment_size)

    def segments(self) -> Iterator[Path]:
        """Every finished segment that was archived or streamed, under its own name."""
        for folder in self.folders:
            yield from sorted(path for path in folder.iterdir() if is_segment(path.name))

    def key(self, path: Path) -> str:
        """A file as the repository names it."""
        return path.relative_to(self.repository).as_posix()

    def required(self) -> list[str]:
        """Segments that a recovery from the base backup to the expected end reads, in order."""
        names: list[str] = []
        for timeline, span_start, span_end in self.spans:
            start = max(span_start, self.start)
            # a new timeline's first segment repeats the last one of the old, which need not be kept
            left = None if span_end is None else segment_start(span_end, self.segment_size)
            end = self.whole_until if left is None else min(left, self.whole_until)
            names += segments_between(timeline, start, end, self.segment_size)
        return names

    @contextmanager
    def as_recovery_sees_it(self) -> Iterator[MergedWal]:
        """One folder of links, made by the same code that a recovery uses."""
        with reading_view(self.repository, self.end.timeline, self.tools) as wal:
            yield wal


@dataclass(frozen=True)
class SourceServer:
    """The running source database; it is only ever queried."""

    live: ClassVar[bool] = True
    config: PipelineConfig

    @classmethod
    def of(cls, config: PipelineConfig) -> Self:
        return cls(config)

    @property
    def address(self) -> str:
        postgres = self.config.postgres
        return f"{postgres.host}:{postgres.port}/{postgres.dbname}"

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection in a read-only transaction."""
        with connect(self.config.postgres) as connection:
            connection.read_only = True
            yield connection

    def databases(self) -> Iterator[tuple[str, psycopg.Connection[Any]]]:
        """Connect to each database in turn; what is of another than the set one is told with it."""
        own = self.config.postgres.dbname
        for row in self.rows(DATABASES, own):
            with connect(self.config.postgres, dbname=row["datname"]) as connection:
                connection.read_only = True
                yield "" if row["datname"] == own else f"{row['datname']}: ", connection

    def rows(self, query: LiteralString, *parameters: object) -> list[dict[str, Any]]:
        """All rows of a query, as dictionaries."""
        with self.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query, parameters).fetchall()


class OfDatabases(Protocol):
    """A server whose databases can be looked at, one after the other."""

    def databases(self) -> Iterator[tuple[str, psycopg.Connection[Any]]]:
        """Give what is put before the names of each, and a connection to it."""


def in_every_database(
    server: OfDatabases, look: Callable[[psycopg.Connection[Any]], Iterator[Observation]]
) -> Iterator[Observation]:
    """What is seen in each database of a server."""
    for where, connection in server.databases():
        for seen in look(connection):
            yield replace(seen, subject=f"{where}{seen.subject}")
