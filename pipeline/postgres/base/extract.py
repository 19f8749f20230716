"""One archive of a base backup onto the disk, each byte read once and hashed twice.

The stored object is compared with the set's manifest, and each file in it with PostgreSQL's own.
What a server writes is plain ustar with folders and files; anything else is refused by name.
"""

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import zstandard

from pipeline.errors import RestoreError
from pipeline.postgres.base.file_list import FileList, Listed
from pipeline.postgres.base.server_manifest import NAME
from pipeline.repository.readahead import ahead
from pipeline.repository.sets import BackupSet
from pipeline.repository.store import HashedStream, StoredObject, chunks_of

_BLOCK = 512  # of a tar archive


@dataclass(frozen=True)
class Destination:
    """Where an archive goes; `above` is the path that PostgreSQL's list puts before its names.

    Without a list (sets of an older version of this package) nothing is compared here.
    """

    folder: Path
    above: str = ""
    listed: FileList | None = None


def extract_proven(backup: BackupSet, entry: StoredObject, into: Destination) -> None:
    """Unpack, hash and compare in one reading.

    Raises RestoreError. The object's digest speaks first: it names the cause of the rest.
    """
    with backup.store.open(entry.key) as stored:
        hashing = HashedStream(stored)
        problem = None
        try:
            with ahead(_plain(hashing)) as blocks:
                for member, pieces in _members(blocks):
                    _write(member, pieces, into)
        except (tarfile.TarError, zstandard.ZstdError, EOFError, RestoreError) as error:
            problem = error
        if damage := hashing.damage(entry):
            raise RestoreError(damage)
    if isinstance(problem, RestoreError):
        raise problem
    if problem is not None:
        raise RestoreError(f"{entry.key}: cannot be unpacked: {problem}") from problem


def _plain(stream: io.RawIOBase) -> Iterator[bytes]:
    packed: IO[bytes] = io.BufferedReader(stream, 1 << 20)
    with zstandard.ZstdDecompressor().stream_reader(packed) as plain:
        yield from chunks_of(plain)


def _members(blocks: Iterator[bytes]) -> Iterator[tuple[tarfile.TarInfo, Iterator[memoryview]]]:
    """Headers of an archive, each with its content, which must be taken before the next one."""
    pieces = _Pieces(blocks)
    while (header := b"".join(pieces.take(_BLOCK))) != bytes(_BLOCK):
        member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        yield member, pieces.take(member.size)
        for _ in pieces.take(-member.size % _BLOCK):
            pass
    for _ in blocks:  # the end of the compressed stream carries a checksum
        pass


class _Pieces:
    """Blocks of any size, cut where the archive wants them, without a copy."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def take(self, count: int) -> Iterator[memoryview]:
        while count:
            if not self._rest:
                self._rest = memoryview(next(self._blocks, b""))
            if not self._rest:
                raise EOFError("the archive ends too early")
            piece, self._rest = self._rest[:count], self._rest[count:]
            count -= len(piece)
            yield piece


def _write(member: tarfile.TarInfo, pieces: Iterator[memoryview], into: Destination) -> None:
    name = member.name.removeprefix("./").rstrip("/")
    if name.startswith("/") or ".." in name.split("/"):
        raise RestoreError(f"{member.name!r} leads out of the backup")
    path = into.folder / name
    if member.isdir():
        path.mkdir(mode=0o700, exist_ok=True)
        path.chmod(member.mode & 0o777)
    elif not member.isreg():
        raise RestoreError(f"{member.name!r} is of type {member.type!r}: no server writes that")
    elif into.listed is None:
        _save(path, member.mode, pieces)
    else:
        listed_as = into.above + name
        into.listed.refuse_unlisted(listed_as)
        digest = hashlib.sha256()
        if listed_as == NAME:  # in place already, from an object of its own
            for piece in pieces:
                digest.update(piece)
        else:
            _save(path, member.mode, pieces, digest.update)
        into.listed.compare(listed_as, Listed(member.size, digest.hexdigest()))


def _save(
    path: Path,
    mode: int,
    pieces: Iterator[memoryview],
    hashed: Callable[[memoryview], object] = lambda _: None,
) -> None:
    """Write a new file; nothing that stands there is followed or replaced."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, mode & 0o777), "wb") as file:
        for piece in pieces:
            hashed(piece)
            file.write(piece)
