"""Base backups whose archive was rewritten behind intact digests: only what is in it can tell."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import zstandard

from pipeline.repository.sets import BackupSet, Manifest

Change = Callable[[tarfile.TarInfo, bytes], list[tuple[tarfile.TarInfo, bytes]]]
"""What stands in the archive instead of one member and its content."""


def repacked(backup: BackupSet, root: Path, change: Change, *, listed: bool = True) -> BackupSet:
    """Rewrite the archive of a set; without `listed` PostgreSQL's list beside it is left out."""
    archive, *others = backup.manifest.objects
    packed = zstandard.ZstdDecompressor().stream_reader((root / archive.key).read_bytes())
    plain = io.BytesIO()
    with (
        tarfile.open(fileobj=packed, mode="r|") as old,
        tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as new,
    ):
        for member in old:
            opened = old.extractfile(member)
            for one, content in change(member, opened.read() if opened else b""):
                one.size = len(content)
                new.addfile(one, io.BytesIO(content))
    return stored_anew(backup, root, plain.getvalue(), keep=len(others) if listed else 0)


def stored_anew(backup: BackupSet, root: Path, plain: bytes, *, keep: int) -> BackupSet:
    """A set that holds that archive, sealed as if it had been so from the start."""
    archive, *others = backup.manifest.objects
    (root / archive.key).unlink()
    stored = backup.store.put(archive.key, [zstandard.ZstdCompressor().compress(plain)])
    changed = {"objects": (stored, *others[:keep])}
    return BackupSet(Manifest(**(backup.manifest.model_dump() | changed)), backup.store)
