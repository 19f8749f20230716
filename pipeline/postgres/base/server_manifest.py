"""PostgreSQL's own list of the files in a base backup, kept beside it as an object of its own.

The next incremental backup needs it, and must not read a whole archive again to find it.
"""

import io
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import zstandard

from pipeline.errors import BackupError
from pipeline.postgres.server.tools import Tools
from pipeline.repository.sets import BackupSet
from pipeline.repository.store import HashedStream, StoredObject, chunks_of

NAME = "backup_manifest"
OBJECT = "backup_manifest.zst"
_BLOCK = 512  # of a tar archive


class ManifestTap:
    """Passes a tar stream on, and copies the server's manifest out of it into a file.

    Only headers are looked at; a file's content is stepped over, whatever its size.
    """

    def __init__(self, blocks: Iterable[bytes], found: IO[bytes]) -> None:
        self._blocks, self._found = blocks, found
        self._header = bytearray()
        self._content = self._padding = 0
        self._wanted = False

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            self._walk(memoryview(block))
            yield block

    def _walk(self, block: memoryview) -> None:
        while block:
            if self._content:
                step = min(self._content, len(block))
                self._content -= step
                if self._wanted:
                    self._found.write(block[:step])
            elif self._padding:
                step = min(self._padding, len(block))
                self._padding -= step
            else:
                step = _BLOCK - len(self._header)
                self._header += block[:step]
                if len(self._header) == _BLOCK:
                    self._enter(bytes(self._header))
                    self._header.clear()
            block = block[step:]

    def _enter(self, header: bytes) -> None:
        size = header[124:136]
        # base 256 where eleven octal digits do not suffice, as GNU tar and PostgreSQL write it
        large = bool(size[0] & 0x80)
        self._content = (
            int.from_bytes(size[1:]) if large else int(size.strip(b"\0 ") or b"0", base=8)
        )
        self._padding = -self._content % _BLOCK
        self._wanted = header[:100].rstrip(b"\0").removeprefix(b"./") == NAME.encode()


def of(backup: BackupSet) -> StoredObject | None:
    """The object that holds it; None in a set that an older version of this package took."""
    key = backup.prefix + OBJECT
    return next((entry for entry in backup.manifest.objects if entry.key == key), None)


def extract(backup: BackupSet, into: Path) -> None:
    """Write it to a file, proven. Raises BackupError when it is not there or damaged."""
    entry = of(backup)
    if entry is None:
        raise BackupError(f"{backup.label} holds no {OBJECT}")
    with into.open("wb") as file:
        unpack_object(backup, entry, file)


def unpack_object(backup: BackupSet, entry: StoredObject, file: IO[bytes]) -> None:
    """Write what an object holds into a file. Raises BackupError when it is damaged."""
    with backup.store.open(entry.key) as stored:
        hashing = HashedStream(stored)
        try:
            with zstandard.ZstdDecompressor().stream_reader(io.BufferedReader(hashing)) as plain:
                for block in chunks_of(plain):
                    file.write(block)
            problem = None
        except zstandard.ZstdError as error:
            problem = f"{entry.key}: cannot be unpacked: {error}"
        if problem := hashing.damage(entry) or problem:
            raise BackupError(problem)


@contextmanager
def readable(backup: BackupSet, tools: Tools) -> Iterator[Path]:
    """A file that PostgreSQL's programs can read, removed at the end of the context."""
    with tempfile.TemporaryDirectory(prefix="pipeline-") as name:
        path = Path(name, NAME)
        extract(backup, path)
        tools.own(Path(name))
        yield path
