"""Bytes by key. One protocol, one conformance suite (tests/test_store.py)."""

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Protocol

from pipeline.errors import ObjectExists, ObjectMissing, StoreError
from pipeline.repository.durable import PREFIX, Unfinished, sync_folders


@dataclass(frozen=True)
class StoredObject:
    """One object of a backup set, as its manifest lists it: `size` in bytes, `sha256` in hex."""

    key: str
    size: int
    sha256: str


class Store(Protocol):
    """Objects are written once, whole or not at all; a key is a relative path with `/`."""

    @property
    def where(self) -> str:
        """The place, as an operator would name it; for messages."""

    def put(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
        """Write durably and return what was written, hashed on the way.

        The object appears under its key only once it is whole and on disk. Identical content under
        the same key is success; other content raises ObjectExists.
        """

    def open(self, key: str) -> BinaryIO:
        """Open for reading from the start. Raises ObjectMissing."""

    def list(self, prefix: str = "") -> Iterator[str]:
        """Keys that start with `prefix`, sorted. Unfinished writes are never listed."""

    def delete(self, key: str) -> None:
        """Remove durably; a missing key raises ObjectMissing."""


def read(store: Store, key: str) -> bytes:
    """Whole content of a small object."""
    with store.open(key) as stream:
        return stream.read()


def chunks_of(stream: IO[bytes], size: int = 1 << 20) -> Iterator[bytes]:
    """Blocks of `size` bytes until the stream ends."""
    while block := stream.read(size):
        yield block


class HashedStream(io.RawIOBase):
    """A stream that hashes what is read through it, so that one reading serves two purposes."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__()
        self._stream = stream
        self._digest = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # io gives views
        block = self._stream.read(len(buffer))
        buffer[: len(block)] = block
        self._digest.update(block)
        self.size += len(block)
        return len(block)

    def hexdigest(self) -> str:
        """Digest of everything, once what the reader left over is read too."""
        while self.read(1 << 20):
            pass
        return self._digest.hexdigest()

    def damage(self, entry: StoredObject) -> str | None:
        """Tell how what was read differs from what the manifest lists, or None."""
        found = self.hexdigest()
        if (found, self.size) == (entry.sha256, entry.size):
            return None
        return (
            f"{entry.key}: expected {entry.size} bytes with sha256 {entry.sha256}, "
            f"found {self.size} bytes with {found}: the backup is damaged"
        )


class FolderStore:
    """A folder on a local or mounted file system; crash-safe through write, fsync, link, fsync."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def where(self) -> str:
        return str(self.root)

    def put(self, key: str, chunks: Iterable[bytes]) -> StoredObject:
        target = self._path(key)
        digest, size = hashlib.sha256(), 0
        try:
            with Unfinished(str(self.root), str(target)) as file:
                for chunk in chunks:
                    digest.update(chunk)
                    size += file.write(chunk)
                if not file.publish():
                    self._must_equal(target, key, digest.hexdigest())
        except OSError as error:
            raise StoreError(f"cannot write {key!r} to {self.root}: {error}") from error
        return StoredObject(key, size, digest.hexdigest())

    def _must_equal(self, target: Path, key: str, sha256: str) -> None:
        with target.open("rb") as present:
            if hashlib.file_digest(present, "sha256").hexdigest() != sha256:
                raise ObjectExists(key, self.where)

    def open(self, key: str) -> BinaryIO:
        try:
            return self._path(key).open("rb")
        except (FileNotFoundError, NotADirectoryError):
            raise ObjectMissing(key, self.where) from None
        except OSError as error:
            raise StoreError(f"cannot read {key!r} from {self.root}: {error}") from error

    def list(self, prefix: str = "") -> Iterator[str]:
        start = self.root / prefix.rpartition("/")[0]
        found = (
            path.relative_to(self.root).as_posix()
            for path in start.rglob("*")
            if path.is_file() and not path.name.startswith(PREFIX)
        )
        yield from sorted(key for key in found if key.startswith(prefix))

    def delete(self, key: str) -> None:
        path = self._path(key)
        try:
            path.unlink()
            sync_folders(str(path.parent), str(path.parent))
        except FileNotFoundError:
            raise ObjectMissing(key, self.where) from None
        except OSError as error:
            raise StoreError(f"cannot delete {key!r} from {self.root}: {error}") from error

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if not key or any(part in {"", ".", ".."} for part in parts):
            raise StoreError(f"{key!r} is not a key: relative, with / and without . or ..")
        return self.root.joinpath(*parts)
