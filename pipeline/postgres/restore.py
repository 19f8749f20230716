"""Bring a base backup back into an empty place, and prove every file of it."""

import io
import shutil
import tarfile
from pathlib import Path
from typing import IO

import zstandard

from pipeline.errors import RestoreError, ToolError
from pipeline.postgres.base_backup import KIND
from pipeline.postgres.tools import Tools
from pipeline.repository import BackupSet
from pipeline.store import HashedStream, StoredObject

UNFINISHED = ".unfinished"


def unpack(backup: BackupSet, into: Path, tools: Tools) -> int:
    """Restore a base backup into `into`, which must not exist; return the bytes read.

    What is written has another name until the stored object and every file in it were compared
    with their manifests, so that a folder named `into` is always a whole, proven copy.

    Raises RestoreError naming the object, the expected digest and the one found.
    """
    if backup.kind != KIND:
        raise RestoreError(f"{backup.label} is a backup of kind {backup.kind}, not {KIND}")
    if into.exists() and any(into.iterdir()):
        raise RestoreError(f"{into} is not empty: a restore never writes into existing data")
    unfinished = into.with_name(into.name + UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)  # left by an interrupted restore of ours
    unfinished.mkdir(mode=0o700, parents=True)
    (entry,) = backup.manifest.objects
    try:
        _extract_proven(backup, entry, unfinished)
        tools.own(unfinished)
        _verify(unfinished, backup.label, tools)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    if into.exists():
        into.rmdir()
    unfinished.rename(into)
    return entry.size


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
    (data / "backup_manifest").unlink()  # left behind, it would poison the next backup
