"""What checks examine of backups that were brought back on this machine, and are thrown away."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import psycopg

from checks import logical_dump
from checks.check import CouldNotLook, NotRun
from checks.subjects import DATABASES, BackupRepository, BaseBackup, LogicalBackup
from checks.trial import (
    Connect,
    brought_back,
    enough_room,
    enough_room_for,
    folder_in,
    loaded,
    log_kept,
    room_of,
)
from pipeline.config import PipelineConfig
from pipeline.errors import PipelineError, RestoreError
from pipeline.postgres.base import base_backup
from pipeline.postgres.base.row_digests import RowDigests
from pipeline.postgres.server.tools import Tools
from pipeline.repository.sets import BackupSet
from pipeline.runbooks.plan import make
from pipeline.runbooks.replaying import as_digested, order_of
from pipeline.runbooks.side import SETTINGS, SideServer

_STARTS_FIRST = (
    "Nothing was examined, and nothing is known to be wrong: the reason told here keeps the "
    "restored server from starting. Mend that first, and see `{}`."
)
_NOT_COMPARED = (
    "No row was compared, and none is known to differ: the reason told here keeps replay from "
    "where the digests were taken. Look at the checks of WAL and at this machine first."
)


@dataclass(frozen=True)
class TrialRestore:
    """The newest base backup, brought back on this machine: a server that is thrown away."""

    live: ClassVar[bool] = False
    restores: ClassVar[bool] = True
    trial: ClassVar[bool] = True
    config: PipelineConfig
    path: Path
    base: BaseBackup
    _kept: ExitStack = field(default_factory=ExitStack, repr=False, compare=False)

    @classmethod
    def of(cls, config: PipelineConfig) -> Self:
        return cls(config, room_of(config), BaseBackup.of(config))

    def close(self) -> None:
        """Stop the server and remove it."""
        self._kept.close()

    def connect(self, dbname: str | None = None) -> psycopg.Connection[Any]:
        """Connect to what was brought back, once for all checks; CouldNotLook says why not."""
        if isinstance(self._restored, PipelineError):
            raise CouldNotLook(
                str(self._restored), _STARTS_FIRST.format("restore.base-backup-starts")
            )
        return self._restored(dbname or self.base.facts["database"])

    def databases(self) -> Iterator[tuple[str, psycopg.Connection[Any]]]:
        """Connect to each database in turn; what is of another than the set's is told with it."""
        own = self.base.facts["database"]
        with self.connect() as connection:
            names = connection.execute(DATABASES, [own]).fetchall()
        for (name,) in names:
            with self.connect(name) as connection:
                yield "" if name == own else f"{name}: ", connection

    @cached_property
    def _restored(self) -> Connect | PipelineError:
        postgres, tools = self.config.postgres, self.base.tools
        try:
            return self._kept.enter_context(
                brought_back(
                    self.base.backup,
                    self.path,
                    tools,
                    user=postgres.user,
                    libraries=postgres.replay_libraries,
                )
            )
        except PipelineError as error:
            return error


@dataclass(frozen=True)
class DigestRestore:
    """The newest base backup that has digests of its tables, replayed to where they were taken."""

    live: ClassVar[bool] = False
    restores: ClassVar[bool] = True
    trial: ClassVar[bool] = True
    config: PipelineConfig
    path: Path
    backup: BackupSet
    digests: RowDigests

    @classmethod
    def of(cls, config: PipelineConfig) -> Self:
        sets = BackupRepository.of(config).sets
        for label in reversed(sets.labels(base_backup.KIND)):
            backup = sets.get(label)
            if (digests := RowDigests.of(backup.manifest.facts)) is not None:
                return cls(config, room_of(config), backup, digests)
        raise NotRun("no base backup has digests of its tables: `pipeline backup base --digests`")

    @cached_property
    def tables(self) -> list[tuple[str, str | None]]:
        """Each table, and what is wrong with it; CouldNotLook where replay does not get there."""
        try:
            return self._compared()
        except PipelineError as error:
            raise CouldNotLook(str(error), _NOT_COMPARED) from error

    def _compared(self) -> list[tuple[str, str | None]]:
        enough_room_for(self.path, self.backup)
        # what only the live server holds is not in the repository, and would not be replayed
        postgres = self.config.postgres.model_copy(update={"data": None})
        plan = make(self.config.model_copy(update={"postgres": postgres}), self.digests.target)
        if plan.backup != self.backup.label:  # its rows would say nothing of this set
            raise RestoreError(
                f"the digests are those of {self.backup.label}, and what can be restored to "
                f"{self.digests.lsn} is {plan.backup}"
            )
        with folder_in(self.path, Tools.of(self.config.postgres)) as folder:
            side = SideServer(self.config, folder / "server")
            try:
                side.unpack(plan.backup)
                order = order_of(self.config, plan, side.folder / "wal")
                with log_kept(side.server, self.path):
                    return as_digested(
                        side.server, order, self.config.postgres, self.backup, SETTINGS
                    )
            finally:
                side.forget()


@dataclass(frozen=True)
class LogicalRestore:
    """The newest logical backup, loaded into a new server on this machine, thrown away."""

    live: ClassVar[bool] = False
    restores: ClassVar[bool] = True
    trial: ClassVar[bool] = True
    dump: LogicalBackup
    path: Path
    _kept: ExitStack = field(default_factory=ExitStack, repr=False, compare=False)

    @classmethod
    def of(cls, config: PipelineConfig) -> Self:
        return cls(LogicalBackup.of(config), room_of(config))

    def close(self) -> None:
        """Stop the server and remove it."""
        self._kept.close()

    def connect(self) -> psycopg.Connection[Any]:
        """Connect to the database that was loaded; CouldNotLook says why it could not be."""
        if isinstance(self._loaded, PipelineError):
            advice = _STARTS_FIRST.format("logical.restores-every-row")
            raise CouldNotLook(str(self._loaded), advice)
        return self._loaded(self.dump.facts["database"])

    @cached_property
    def _loaded(self) -> Connect | PipelineError:
        stored = sum(entry.size for entry in self.dump.backup.manifest.objects)
        enough_room(self.path, logical_dump.GROWS * stored)
        try:
            return self._kept.enter_context(loaded(self.dump.backup, self.path, self.dump.tools))
        except PipelineError as error:
            return error
