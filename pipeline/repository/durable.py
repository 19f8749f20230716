"""Files that appear under their name only once they are whole and on disk, and never replace.

Imported for each WAL segment that a server hands over, so it imports next to nothing: pathlib,
dataclasses and typing together take longer than the segment.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

PREFIX = ".unfinished-"
# what open answers where the file system, or the kernel, has no files without a name
_NO_NAMELESS_FILES = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}


class Unfinished:
    """A new file to write to; `publish` gives it its name, and without that nothing is left.

    While it is written it has no name, so that a writer that is killed leaves nothing at all. Only
    where the file system has no such files (NFS) its part stays, under a name with PREFIX.
    """

    def __init__(self, root: str, target: str) -> None:
        self._root, self._target = root, target
        os.makedirs(root, exist_ok=True)
        folder = _there(os.path.dirname(target))
        self._named = ""
        try:
            descriptor = os.open(folder, os.O_WRONLY | os.O_TMPFILE, 0o666)
            self._source = f"/proc/self/fd/{descriptor}"
        except OSError as error:
            if error.errno not in _NO_NAMELESS_FILES:
                raise
            self._source = self._named = f"{folder}/{PREFIX}{os.urandom(8).hex()}"
            descriptor = os.open(self._named, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        self._stream = os.fdopen(descriptor, "wb")

    def write(self, block: bytes) -> int:
        return self._stream.write(block)

    def copy(self, source: int) -> None:
        """Write everything that a file descriptor gives, inside of the kernel."""
        self._stream.flush()
        position = 0
        while count := os.sendfile(self._stream.fileno(), source, position, 1 << 24):
            position += count

    def publish(self) -> bool:
        """Make content and name durable; False when something stands under the name already."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        published = self._name()
        sync_folders(os.path.dirname(self._target), self._root)
        return published

    def _name(self) -> bool:
        parent, name = os.path.split(self._target)
        os.makedirs(parent, exist_ok=True)
        folder = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
        try:  # unlike rename, a link never replaces; with a folder given it follows /proc's links
            os.link(self._source, name, dst_dir_fd=folder, follow_symlinks=True)
        except FileExistsError:
            return False
        finally:
            os.close(folder)
        return True

    def close(self) -> None:
        """Let go of it; what was not named is gone."""
        try:
            self._stream.close()
        finally:
            if self._named:
                os.unlink(self._named)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self.close()
        except OSError:  # what could not be flushed is not published either
            if kind is None:
                raise


def same(one: str, other: str) -> bool:
    """Whether two files have the same bytes."""
    with open(one, "rb") as first, open(other, "rb") as second:
        while block := first.read(1 << 20):
            if block != second.read(1 << 20):
                return False
        return not second.read(1)


def sync_folders(folder: str, root: str) -> None:
    """Make names durable, from the folder up to the root: a new folder is a name as well."""
    while True:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        above = os.path.dirname(folder)
        if folder in {root, above}:
            return
        folder = above


def sync_file_system(folder: str) -> None:
    """Make everything durable that was written to a folder's file system, by anybody.

    Of thousands of files one call is far cheaper than one for each. Since Linux 5.8 it reports
    what could not be written.
    """
    import ctypes

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), folder)
    finally:
        os.close(descriptor)


def _there(folder: str) -> str:
    """Return the folder, or the nearest above it that exists."""
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return folder
