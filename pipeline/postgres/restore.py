"""Bring a base backup back into an empty place, and prove every file of it."""

import io
import os
import shutil
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import zstandard

from pipeline.errors import RestoreError, ToolError
from pipeline.postgres import chain, server_manifest, tablespaces
from pipeline.postgres.base_backup import KIND, archives, tablespace_of
from pipeline.postgres.tools import Tools
from pipeline.repository import BackupSet
from pipeline.store import HashedStream, StoredObject

UNFINISHED = ".unfinished"
_COMBINED = "combined"


def unpack(
    backup: BackupSet, into: Path, tools: Tools, places: Mapping[str, Path] | None = None
) -> int:
    """Restore a base backup into `into`, which must not exist; return the bytes read.

    What is written has another name until the stored objects and every file in them were compared
    with their manifests, so that a folder named `into` is always a whole, proven copy. Of an
    incremental backup the whole chain is proven, then combined.

    `places` names a location for each tablespace, by oid; those that it does not name are kept
    in place, inside of `into`, so that nothing outside is touched.

    Raises RestoreError naming the object, the expected digest and the one found.
    """
    if backup.kind != KIND:
        raise RestoreError(f"{backup.label} is a backup of kind {backup.kind}, not {KIND}")
    if into.exists() and any(into.iterdir()):
        raise RestoreError(f"{into} is not empty: a restore never writes into existing data")
    return _Unpacking(backup, into, tools, places or {}).run()


def finish(into: Path) -> None:
    """Remove what a restore left that was interrupted after the folder got its name."""
    (into / tablespaces.NOTE).unlink(missing_ok=True)
    shutil.rmtree(into.with_name(into.name + UNFINISHED), ignore_errors=True)


class _Unpacking:
    """One restore. All that is unfinished lies in `work`, and in a home beside each place."""

    def __init__(
        self, backup: BackupSet, into: Path, tools: Tools, places: Mapping[str, Path]
    ) -> None:
        held = {tablespace_of(entry) for entry in archives(backup)}
        self._backup, self._into, self._tools = backup, into, tools
        self._places = {oid: place for oid, place in places.items() if oid in held}
        self._homes = tablespaces.homes(self._places, into)
        self._work = into.with_name(into.name + UNFINISHED)

    def run(self) -> int:
        links = chain.links(self._backup)
        self._clear()  # left by an interrupted restore of ours
        major = self._backup.manifest.facts["server_version_num"] // 10000
        tablespaces.refuse_occupied(self._places, major)
        try:
            self._prepare()
            size = self._extract(links)
            data = self._combine(links) if len(links) > 1 else self._folder(self._backup)
            (data / server_manifest.NAME).unlink()  # left behind, it would poison the next backup
            # the server would make its links anew, and they would name the original places
            (data / tablespaces.MAP).unlink(missing_ok=True)
            tablespaces.settle(data, {o: (self._homes[o], p) for o, p in self._places.items()})
            if self._into.exists():
                self._into.rmdir()
            data.rename(self._into)
        except BaseException:
            self._clear()
            raise
        finish(self._into)
        return size

    def _folder(self, link: BackupSet) -> Path:
        return self._work / link.label

    def _prepare(self) -> None:
        self._work.mkdir(mode=0o700, parents=True)
        for place, home in zip(self._places.values(), self._homes.values(), strict=True):
            if not place.exists():
                place.mkdir(mode=0o700, parents=True)
                self._tools.own(place)
            home.mkdir(mode=0o700)

    def _clear(self) -> None:
        for data in self._work.glob("*"):
            tablespaces.withdraw(data)
        for unfinished in (self._work, *self._homes.values()):
            shutil.rmtree(unfinished, ignore_errors=True)

    def _extract(self, links: list[BackupSet]) -> int:
        """Unpack every archive of every link, and prove what came out."""
        for link in links:
            self._folder(link).mkdir(mode=0o700)
        jobs = [
            (link, entry, self._home(link, tablespace_of(entry)))
            for link in links
            for entry in archives(link)
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda job: _extract_proven(*job), jobs))
        self._tools.own(self._work)
        for home in self._homes.values():
            self._tools.own(home)
        for link in links:
            data = self._folder(link)
            if not (data / server_manifest.NAME).exists():  # its archives were not streamed
                server_manifest.extract(link, data / server_manifest.NAME)
                self._tools.own(data / server_manifest.NAME)
            _verify(data, link.label, self._tools)
            chain.refuse_foreign_label(data, link)
        return sum(entry.size for _, entry, _ in jobs)

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
                "pg_combinebackup",
                *("--no-sync", "--manifest-checksums=SHA256", *self._cheaply()),
                *(f"--tablespace-mapping={mapping}" for mapping in mapped),
                *(self._folder(link) for link in links),
                f"--output={result}",
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


def _extract_proven(backup: BackupSet, entry: StoredObject, into: Path) -> None:
    """Unpack and hash in one reading. The digest speaks first: it names the cause of the rest."""
    with backup.store.open(entry.key) as stream:
        hashing = HashedStream(stream)
        problem = _extract(io.BufferedReader(hashing, 1 << 20), into)
        damage = hashing.damage(entry)
    if damage:
        raise RestoreError(damage)
    if problem is not None:
        raise RestoreError(f"{entry.key}: cannot be unpacked: {problem}") from problem


def _extract(stream: IO[bytes], into: Path) -> Exception | None:
    """Unpack; an error is returned, because the digest of the rest tells its cause."""
    try:
        with (
            zstandard.ZstdDecompressor().stream_reader(stream) as plain,
            tarfile.open(fileobj=plain, mode="r|") as archive,
        ):
            # Debian 12's Python 3.11.2 has no filters yet; the backup's digest is checked anyway
            archive.extraction_filter = getattr(tarfile, "tar_filter", lambda member, _: member)
            archive.extractall(into)  # noqa: S202 - filtered
    except (tarfile.TarError, zstandard.ZstdError, EOFError) as error:
        return error
    return None


def _verify(data: Path, label: str, tools: Tools) -> None:
    """Compare every file with the server's own manifest, and read the backup's WAL."""
    try:
        tools.run("pg_verifybackup", "--quiet", data)
    except ToolError as error:
        raise RestoreError(f"{label}: pg_verifybackup refuses the restored files: {error}") from (
            error
        )
