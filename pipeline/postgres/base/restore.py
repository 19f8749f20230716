"""Bring a base backup back into an empty place, and prove every file of it."""

import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.errors import BackupError, PipelineError, PlaceTaken, RestoreError, ToolError
from pipeline.postgres.base import chain, place, server_manifest, tablespaces
from pipeline.postgres.base.base_backup import KIND, archives, tablespace_of
from pipeline.postgres.base.extract import Destination, extract_proven
from pipeline.postgres.base.file_list import FileList
from pipeline.postgres.server.orphans import end_orphans
from pipeline.postgres.server.tools import Tools
from pipeline.repository.durable import sync_file_system, sync_folders
from pipeline.repository.sets import BackupSet

MARK = "restored_by"
"""A file in a restored folder that names the recovery; it comes with the folder's own name."""
_COMBINED = "combined"
_COMBINER = "pg_combinebackup"


def unpack(
    backup: BackupSet,
    into: Path,
    tools: Tools,
    places: Mapping[str, Path] | None = None,
    *,
    kept_as: str | None = None,
    mark: str = "",
) -> int:
    """Restore a base backup into `into`, which must not exist; return the bytes read.

    What is written has another name until the stored objects and every file in them were compared
    with their manifests, so that a folder named `into` is always a whole, proven copy. Of an
    incremental backup the whole chain is proven, then combined.

    `places` names a location for each tablespace, by oid; those that it does not name are kept
    in place, inside of `into`, so that nothing outside is touched. What lies in such a location
    is refused, or put aside in it under the name `kept_as`. `mark` names the recovery for which it
    is done: `marked` answers it, until `unmark` lets a server have the folder.

    Raises RestoreError naming the object, the expected digest and the one found; PipelineError
    where the place does not take it: no room, no permission.
    """
    if backup.kind != KIND:
        raise RestoreError(f"{backup.label} is a backup of kind {backup.kind}, not {KIND}")
    into = into.resolve()  # of a link that it may be, the folder is replaced
    if place.occupants(into):
        raise PlaceTaken(f"{into} is not empty: a restore never writes into existing data")
    return _Unpacking(backup, into, tools, places or {}, mark).run(kept_as)


def finish(into: Path) -> None:
    """Remove what a restore left that was interrupted after the folder got its name."""
    (into / tablespaces.NOTE).unlink(missing_ok=True)
    shutil.rmtree(place.work_of(into), ignore_errors=True)


def marked(data: Path) -> str:
    """Name the recovery that restored this folder and did not use it yet; empty without one."""
    mark = data / MARK
    return mark.read_text() if mark.exists() else ""


def unmark(data: Path) -> None:
    """Take the mark away, before a server works in the folder and a backup of it is taken."""
    (data / MARK).unlink(missing_ok=True)


class _Unpacking:
    """One restore. All that is unfinished lies in `work`, and in a home beside each place."""

    def __init__(
        self,
        backup: BackupSet,
        into: Path,
        tools: Tools,
        places: Mapping[str, Path],
        mark: str,
    ) -> None:
        held = {tablespace_of(entry) for entry in archives(backup)}
        self._backup, self._into, self._tools, self._mark = backup, into, tools, mark
        self._places = {oid: place for oid, place in places.items() if oid in held}
        self._homes = tablespaces.homes(self._places, into)
        self._work = place.work_of(into)

    def run(self, kept_as: str | None) -> int:
        links = chain.links(self._backup)
        self._end_interrupted()
        major = self._backup.manifest.facts["server_version_num"] // 10000
        if kept_as is not None:
            tablespaces.keep_left(self._places, major, kept_as)
        tablespaces.refuse_occupied(self._places, major)
        try:
            self._prepare()
            with tablespaces.locked(self._work):
                size = self._restore(links)
        except OSError as error:  # no RestoreError: the backup is not damaged, no other would help
            self._clear()
            told = f"{self._backup.label}: cannot be unpacked into {self._into}: {error}"
            raise PipelineError(told) from error
        except BaseException:
            self._clear()
            raise
        finish(self._into)
        return size

    def _restore(self, links: list[BackupSet]) -> int:
        """Extract, combine, prove, settle, and give the result its name."""
        size = self._extract(links)
        data = self._combine(links) if len(links) > 1 else self._folder(self._backup)
        (data / server_manifest.NAME).unlink()  # left behind, it would poison the next backup
        # the server would make its links anew, and they would name the original places
        (data / tablespaces.MAP).unlink(missing_ok=True)
        if self._mark:
            (data / MARK).write_text(self._mark)
        tablespaces.settle(data, {o: (self._homes[o], p) for o, p in self._places.items()})
        self._sync()
        place.settle(data, self._into, last=MARK)
        sync_folders(str(self._into.parent), str(self._into.parent))
        return size

    def _end_interrupted(self) -> None:
        """Remove what a killed restore left, and end the program that may still write there.

        Raises RestoreError while that restore is alive.
        """
        if self._work.exists():
            with tablespaces.locked(self._work) as abandoned:
                if not abandoned:
                    raise RestoreError(
                        f"{self._work} is in use: another restore into {self._into} is running"
                    )
            end_orphans(self._work, _COMBINER)
        self._clear()

    def _sync(self) -> None:
        """Make all of it durable: the name that comes last says that it is whole.

        A server would do it before its recovery, but a crash may come before that server.
        """
        file_systems = {p.stat().st_dev: p for p in (self._work, *self._places.values())}
        for folder in file_systems.values():
            sync_file_system(str(folder))

    def _folder(self, link: BackupSet) -> Path:
        return self._work / link.label

    def _prepare(self) -> None:
        self._work.mkdir(mode=0o700, parents=True)
        for location, home in zip(self._places.values(), self._homes.values(), strict=True):
            if not location.exists():
                location.mkdir(mode=0o700, parents=True)
                self._tools.own(location)
            home.mkdir(mode=0o700)

    def _clear(self) -> None:
        for data in (*self._work.glob("*"), self._into):
            tablespaces.withdraw(data)
        place.withdraw(self._into)
        for unfinished in (self._work, *self._homes.values()):
            shutil.rmtree(unfinished, ignore_errors=True)

    def _extract(self, links: list[BackupSet]) -> int:
        """Unpack every archive of every link, and prove what came out."""
        lists = {link.label: _list_of(link, self._folder(link)) for link in links}
        jobs = [
            (link, entry, self._destination(link, tablespace_of(entry), lists[link.label]))
            for link in links
            for entry in archives(link)
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda job: extract_proven(*job), jobs))
        self._tools.own(self._work)
        for home in self._homes.values():
            self._tools.own(home)
        for link in links:
            self._prove(link, lists[link.label])
            chain.refuse_foreign_label(self._folder(link), link)
        return sum(entry.size for _, entry, _ in jobs)

    def _prove(self, link: BackupSet, listed: FileList | None) -> None:
        """What the unpacking could not see: what is missing, and whether the WAL can be read."""
        data = self._folder(link)
        if listed is None:
            _verify(data, link.label, self._tools)
            return
        listed.refuse_missing()
        for arguments in listed.waldump_arguments():
            try:
                self._tools.run("pg_waldump", "--quiet", f"--path={data / 'pg_wal'}", *arguments)
            except ToolError as error:
                raise RestoreError(
                    f"{link.label}: pg_waldump cannot read the WAL of the backup: {error}"
                ) from error

    def _destination(self, link: BackupSet, oid: str, listed: FileList | None) -> Destination:
        above = f"{tablespaces.LINKS}/{oid}/" if oid else ""
        return Destination(self._home(link, oid), above, listed)

    def _home(self, link: BackupSet, oid: str) -> Path:
        """Where an archive is unpacked; the data folder's link already names it."""
        data = self._folder(link)
        if not oid:
            return data
        (data / tablespaces.LINKS).mkdir(mode=0o700, exist_ok=True)
        inside = data / tablespaces.LINKS / oid
        if link is not self._backup or oid not in self._homes:
            inside.mkdir(mode=0o700)
            return inside
        home = self._homes[oid]
        if chain.parent_label(link) is not None:  # pg_combinebackup maps one folder onto another
            home = self._work / f"tablespace-{oid}"
            home.mkdir(mode=0o700)
        tablespaces.point(data, oid, home)
        return home

    def _combine(self, links: list[BackupSet]) -> Path:
        """Make one full copy of the chain, and prove it against the manifest that comes with it."""
        result = self._work / _COMBINED
        mapped = [f"{self._work}/tablespace-{oid}={home}" for oid, home in self._homes.items()]
        try:
            self._tools.run(
                _COMBINER,
                *("--no-sync", "--manifest-checksums=SHA256", *self._cheaply()),
                *(f"--tablespace-mapping={mapping}" for mapping in mapped),
                *(self._folder(link) for link in links),
                f"--output={result}",
                cwd=self._work,  # so that a later restore finds it, should it outlive this one
            )
        except ToolError as error:
            named = ", ".join(link.label for link in links)
            raise RestoreError(f"pg_combinebackup cannot combine {named}: {error}") from error
        _verify(result, self._backup.label, self._tools)
        return result

    def _cheaply(self) -> list[str]:
        """Link what no increment changed: what it was linked from is removed in the end."""
        device = self._work.stat().st_dev
        together = all(home.stat().st_dev == device for home in self._homes.values())
        since = self._backup.manifest.facts["server_version_num"] >= 180000
        return ["--link"] if since and together else []


def _list_of(link: BackupSet, data: Path) -> FileList | None:
    """Make the folder, put PostgreSQL's own list into it, and read it; None where no object is."""
    data.mkdir(mode=0o700)
    if server_manifest.of(link) is None:
        return None
    path = data / server_manifest.NAME
    try:
        server_manifest.extract(link, path)
    except BackupError as error:
        raise RestoreError(str(error)) from error
    return FileList.parse(link.label, path.read_bytes(), link.manifest.facts["system_identifier"])


def _verify(data: Path, label: str, tools: Tools) -> None:
    """Compare every file with the server's own manifest, and read the backup's WAL."""
    try:
        tools.run("pg_verifybackup", "--quiet", data)
    except ToolError as error:
        raise RestoreError(f"{label}: pg_verifybackup refuses the restored files: {error}") from (
            error
        )
