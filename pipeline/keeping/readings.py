"""What was read in full, and when: one line for each object, each line sealed with those before it.

The file lies in the repository and is only ever appended to while a verification runs, so that a
crash loses the object that was being read and nothing else. A line that was cut is such a crash.
Any other damage makes the whole file worthless, because it could claim what never was: then
everything is read again.
"""

import errno
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from pipeline.errors import StoreError

FILE = "verified.jsonl"
DAMAGED = "verified.jsonl.damaged"
_FORMAT = "readings 1"
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


@dataclass(frozen=True)
class Reading:
    """One object as it was last read from its first byte to its last.

    `size` and `sha256` are what it must have. `changed` is the file's ctime in ns: another one
    means that somebody wrote to it, the same one proves nothing.
    """

    key: str
    size: int
    sha256: str
    read: datetime
    changed: int
    sound: bool

    def line(self) -> dict[str, Any]:
        """The reading as JSON has it."""
        return asdict(self) | {"read": self.read.isoformat()}

    @classmethod
    def of(cls, line: dict[str, Any]) -> "Reading":
        """Read it back; KeyError, TypeError or ValueError where it is no reading."""
        reading = cls(**line)
        return replace(reading, read=datetime.fromisoformat(line["read"]))


class Readings:
    """The readings of a repository by key; `note` says why there are none, where that matters.

    They are `kept` unless the repository is read-only.
    """

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self._path, self._stream = path, stream
        self._seal, self._synced = "", 0.0
        self.note: str | None = None
        self.kept = True
        self._by_key: dict[str, Reading] = {}
        self._load()

    def get(self, key: str) -> Reading | None:
        return self._by_key.get(key)

    def __iter__(self) -> Iterator[Reading]:
        return iter(self._by_key.values())

    def add(self, reading: Reading) -> None:
        """Append; only for an object that was read to its end. Durable within a second."""
        self._seal, line = _sealed(self._seal, reading.line())
        try:
            self._stream.write(line)
            self._stream.flush()  # from here on it survives this process
            if time.monotonic() - self._synced > 1:
                os.fsync(self._stream.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error}") from error
        self._by_key[reading.key] = reading

    def keep(self, keys: set[str]) -> None:
        """Write the file anew with one line for each of these keys, in one step."""
        unfinished = self._path.with_suffix(".unfinished")
        self._by_key = {key: self._by_key[key] for key in sorted(keys & self._by_key.keys())}
        seal, lines = _sealed("", {"format": _FORMAT})
        written = [lines]
        for reading in self._by_key.values():
            seal, line = _sealed(seal, reading.line())
            written.append(line)
        try:
            with unfinished.open("wb") as stream:
                stream.write(b"".join(written))
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.replace(self._path)
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error}") from error

    def _load(self) -> None:
        self._stream.seek(0)
        lines = self._stream.read().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            cut = lines.pop()  # a verification was killed while it wrote this
            self._stream.truncate(self._stream.tell() - len(cut))
        try:
            for number, line in enumerate(lines):
                self._take(number, line)
        except (ValueError, KeyError, TypeError) as error:
            self._begin_again(f"{self._path} is damaged ({error}), kept as {DAMAGED}")
        else:
            if not lines:
                self._begin_again(None)

    def _take(self, number: int, line: bytes) -> None:
        content = json.loads(line)
        found = content.pop("seal")
        self._seal, _ = _sealed(self._seal, content)
        if found != self._seal:
            raise ValueError(f"line {number + 1} does not follow from those before it")
        if number == 0:
            if content != {"format": _FORMAT}:
                raise ValueError(f"expected {_FORMAT!r}, found {content}")
            return
        reading = Reading.of(content)
        self._by_key[reading.key] = reading

    def _begin_again(self, note: str | None) -> None:
        self.note = note
        self._by_key = {}
        if note is not None:
            self._path.with_name(DAMAGED).write_bytes(self._path.read_bytes())
        self._stream.truncate(0)
        self._seal, line = _sealed("", {"format": _FORMAT})
        self._stream.write(line)
        self._stream.flush()


def _sealed(before: str, content: dict[str, Any]) -> tuple[str, bytes]:
    """Seal of a line, and the line; it holds for all lines up to this one."""
    body = json.dumps(content, sort_keys=True, separators=(",", ":"))
    seal = hashlib.sha256(f"{before}\n{body}".encode()).hexdigest()
    return seal, json.dumps(content | {"seal": seal}).encode() + b"\n"


@contextmanager
def open_readings(repository: Path) -> Iterator[Readings]:
    """Open for one verification; StoreError where another runs, or nothing can be written.

    Whoever looks at a repository that is read-only to him goes on from a copy, which ends with it.
    """
    path = repository / FILE
    with ExitStack() as stack:
        try:
            stream = _locked(path)
        except BlockingIOError:
            raise StoreError(f"another verification of {repository} is running") from None
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise StoreError(f"cannot keep {path}: {error}") from error
            copy = Path(stack.enter_context(TemporaryDirectory(prefix="pipeline-")), FILE)
            copy.write_bytes(path.read_bytes() if path.exists() else b"")
            path, stream = copy, _locked(copy)
        found = Readings(path, stack.enter_context(stream))
        found.kept = path.parent == repository
        yield found


def _locked(path: Path) -> IO[bytes]:
    while True:
        stream = path.open("a+b")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.fstat(stream.fileno()).st_ino == path.stat().st_ino:
                return stream
        except OSError:
            stream.close()
            raise
        stream.close()  # whoever held it has replaced the file: take the new one
