"""What is inside a backup set, found in one reading of its objects."""

import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple

import zstandard
from pydantic import BaseModel, ConfigDict

from checks.increments import IncrementWalk
from checks.pages import PageReport, PageWalk, changed_file, first_block
from fixtures import cache
from pipeline.postgres.base import server_manifest
from pipeline.postgres.base.base_backup import ARCHIVE, tablespace_of
from pipeline.postgres.wal.lsn import LONG_PAGE_HEADER, Lsn
from pipeline.repository.sets import BackupSet
from pipeline.repository.store import HashedStream, StoredObject, chunks_of

KEPT = (
    *("backup_manifest", "backup_label", "tablespace_map", "PG_VERSION", "global/pg_control"),
    *("postgresql.conf", "pg_hba.conf"),
)
NOTES = "contents.json"


class Found(NamedTuple):
    """Size in bytes and digest in hex of what was read."""

    size: int
    sha256: str


class Contents(BaseModel):
    """Every object of a set and every file in it; `kept` holds the bytes of the few small ones."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    objects: dict[str, Found] = {}
    files: dict[str, Found] = {}
    kept: dict[str, bytes] = {}
    wal_heads: dict[str, bytes] = {}
    """First page header of each segment that the backup brings along."""
    pages: dict[str, PageReport] = {}
    increments: dict[str, str | None] = {}
    """Files that hold changed blocks of a relation; why one is not laid out so, or None."""
    trouble: dict[str, str] = {}
    """Why the object of that key could not be read to its end."""


def read(backup: BackupSet) -> Contents:
    """Read every object of the set once, and hash it and what it holds on the way."""
    contents = Contents()
    for entry in backup.manifest.objects:
        _Reading(backup, contents).read(entry)
    return contents


def read_anew(backup: BackupSet) -> Contents:
    """Read a copy: every byte is hashed anew, and unpacked where none like it was read before."""
    facts, hashed = backup.manifest.facts, []
    for entry in backup.manifest.objects:
        if entry.key in set(backup.store.list(entry.key)):
            with backup.store.open(entry.key) as stored:
                hashed.append((entry.key, HashedStream(stored).hexdigest()))
    same = (str(facts.get("start_lsn")), facts.get("data_checksums") is not False, *hashed)
    return _read(_Bytes(same, backup))


@dataclass(frozen=True)
class _Bytes:
    """All that a reading depends on; two copies of it read the same."""

    told: tuple[object, ...]
    backup: BackupSet = field(compare=False)


@lru_cache(maxsize=8)
def _read(these: _Bytes) -> Contents:
    return read(these.backup)


def read_once(backup: BackupSet, notes: Path) -> Contents:
    """Read for all workers of a session: the first one writes down what it found."""

    def read_and_note(folder: Path) -> None:
        (folder / NOTES).write_text(read(backup).model_dump_json())

    folder = cache.ensure(notes / backup.label, read_and_note)
    return Contents.model_validate_json((folder / NOTES).read_bytes())


def files_in(packed: IO[bytes], entry: StoredObject) -> Iterator[tuple[str, IO[bytes]]]:
    """Every file in an archive by its name in the data folder; each is read before the next."""
    oid = tablespace_of(entry)
    above = f"pg_tblspc/{oid}/" if oid else ""
    with (
        zstandard.ZstdDecompressor().stream_reader(packed) as plain,
        tarfile.open(fileobj=plain, mode="r|") as archive,
    ):
        for member in archive:
            opened = archive.extractfile(member) if member.isreg() else None
            if opened is not None:
                yield above + member.name.removeprefix("./"), opened


class _Reading:
    """One reading of one set, into one `contents`."""

    def __init__(self, backup: BackupSet, contents: Contents) -> None:
        self._backup, self._contents = backup, contents
        facts = backup.manifest.facts
        self._checksums = facts.get("data_checksums") is not False
        try:
            self._start = int(Lsn.parse(str(facts.get("start_lsn"))))
        except ValueError:
            self._start = 1 << 64  # the manifest is damaged, and another check says so

    def read(self, entry: StoredObject) -> None:
        """Hash an object, and what is packed in it."""
        store, contents = self._backup.store, self._contents
        if entry.key not in set(store.list(entry.key)):
            return  # an object that is missing has no contents; the checks name it
        with store.open(entry.key) as stored:
            stream = HashedStream(stored)
            try:
                if entry.key.endswith(ARCHIVE):
                    for name, opened in files_in(io.BufferedReader(stream, 1 << 20), entry):
                        self._file(name, opened)
                elif entry.key.endswith(server_manifest.OBJECT):
                    packed = io.BufferedReader(stream, 1 << 20)
                    with zstandard.ZstdDecompressor().stream_reader(packed) as plain:
                        # the archive of a streamed backup holds it too, and is read first
                        contents.kept.setdefault(server_manifest.NAME, plain.read())
            except (tarfile.TarError, zstandard.ZstdError, EOFError) as error:
                contents.trouble[entry.key] = f"cannot be unpacked to its end: {error}"
            digest = stream.hexdigest()  # what the archive's reader left over is read now
            contents.objects[entry.key] = Found(stream.size, digest)

    def _file(self, name: str, opened: IO[bytes]) -> None:
        contents = self._contents
        if name in KEPT:
            contents.kept[name] = kept = opened.read()
            contents.files[name] = Found(len(kept), hashlib.sha256(kept).hexdigest())
            return
        walk = self._walk_of(name)
        digest, size = hashlib.sha256(), 0
        for block in chunks_of(opened):
            if size == 0 and name.startswith("pg_wal/"):
                contents.wal_heads[name] = block[:LONG_PAGE_HEADER]
            if walk is not None:
                walk.feed(block)
            digest.update(block)
            size += len(block)
        contents.files[name] = Found(size, digest.hexdigest())
        if isinstance(walk, IncrementWalk):
            contents.pages[name], contents.increments[name] = walk.told()
        elif walk is not None:
            contents.pages[name] = walk.report()

    def _walk_of(self, name: str) -> PageWalk | IncrementWalk | None:
        """Who looks at the pages of a file: of a relation, of an increment of one, or nobody."""
        if (first := first_block(name)) is not None:
            return PageWalk(first, checksums=self._checksums, torn_from=self._start)
        if (first := first_block(changed_file(name) or "")) is not None:
            return IncrementWalk(first, checksums=self._checksums, torn_from=self._start)
        return None
