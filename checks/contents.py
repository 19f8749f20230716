"""What is inside a base backup, found in one reading of its object."""

import hashlib
import io
import tarfile
from pathlib import Path
from typing import IO, NamedTuple

import zstandard
from pydantic import BaseModel, ConfigDict

from fixtures import cache
from pipeline.repository import BackupSet
from pipeline.store import HashedStream, Store, StoredObject, chunks_of

ARCHIVE = ".tar.zst"
KEPT = ("backup_manifest", "backup_label", "tablespace_map", "PG_VERSION", "global/pg_control")
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
    trouble: dict[str, str] = {}
    """Why the object of that key could not be read to its end."""


def read(backup: BackupSet) -> Contents:
    """Read every object of the set once, and hash it and what it holds on the way."""
    contents = Contents()
    for entry in backup.manifest.objects:
        _read_object(backup.store, entry, contents)
    return contents


def read_once(backup: BackupSet, notes: Path) -> Contents:
    """Read for all workers of a session: the first one writes down what it found."""

    def read_and_note(folder: Path) -> None:
        (folder / NOTES).write_text(read(backup).model_dump_json())

    folder = cache.ensure(notes / backup.label, read_and_note)
    return Contents.model_validate_json((folder / NOTES).read_bytes())


def _read_object(store: Store, entry: StoredObject, contents: Contents) -> None:
    if entry.key not in set(store.list(entry.key)):
        return  # an object that is missing has no contents; the checks name it
    with store.open(entry.key) as stored:
        stream = HashedStream(stored)
        if entry.key.endswith(ARCHIVE):
            try:
                _read_archive(io.BufferedReader(stream, 1 << 20), contents)
            except (tarfile.TarError, zstandard.ZstdError, EOFError) as error:
                contents.trouble[entry.key] = f"cannot be unpacked to its end: {error}"
        digest = stream.hexdigest()  # what the archive's reader left over is read now
        contents.objects[entry.key] = Found(stream.size, digest)


def _read_archive(stream: IO[bytes], contents: Contents) -> None:
    with (
        zstandard.ZstdDecompressor().stream_reader(stream) as plain,
        tarfile.open(fileobj=plain, mode="r|") as archive,
    ):
        for member in archive:
            opened = archive.extractfile(member) if member.isreg() else None
            if opened is None:
                continue
            name = member.name.removeprefix("./")
            if name in KEPT:
                contents.kept[name] = kept = opened.read()
                contents.files[name] = Found(len(kept), hashlib.sha256(kept).hexdigest())
                continue
            digest, size = hashlib.sha256(), 0
            for block in chunks_of(opened):
                digest.update(block)
                size += len(block)
            contents.files[name] = Found(size, digest.hexdigest())
