"""The audit trail of one recovery: JSON lines in the repository, and what resuming needs."""

import contextlib
import fcntl
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pipeline.errors import ConfigError, RecoveryRefused, StoreError

FILE = "journal.jsonl"
FOLDER = "recoveries"
_ABANDONED = "abandoned"


class Journal:
    """Append-only and synced line by line: after a power cut the next run knows where it stood."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE

    @classmethod
    def new(cls, repository: Path, kind: str) -> Self:
        """Open the log of a new recovery; no two share a name, also within a second."""
        name = f"{kind}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
        return cls(repository / FOLDER / name)

    @classmethod
    def named(cls, repository: Path, kind: str, name: str) -> Self:
        """Open the log of an earlier recovery of that kind; ConfigError where there is none."""
        found = cls(repository / FOLDER / name)
        if re.fullmatch(r"\w[\w.-]*", name) is None or not found.path.is_file():
            raise ConfigError(f"there is no recovery {name!r} in {repository / FOLDER}")
        if not name.startswith(f"{kind}-"):
            raise ConfigError(f"{name} is another kind of recovery, expected {kind}-…")
        return found

    @classmethod
    def every(cls, repository: Path, kind: str) -> Iterator[Self]:
        """Logs of all recoveries of that kind, in the order of their names."""
        for path in sorted((repository / FOLDER).glob(f"{kind}-*/{FILE}")):
            yield cls(path.parent)

    @property
    def recovery(self) -> str:
        """Identity of the recovery: the name of its folder."""
        return self.folder.name

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the recovery for this process; RecoveryRefused while another one has it."""
        self._made(self.folder)
        with held(self.folder / "lock", f"{self.recovery} is running already"):
            yield

    @contextlib.contextmanager
    def only(self, kind: str) -> Iterator[None]:
        """Hold all recoveries of a kind; RecoveryRefused while another process runs one."""
        self._made(self.folder.parent)
        refusal = f"another recovery of the kind {kind} is running already"
        with held(self.folder.parent / f"{kind}.lock", refusal):
            yield

    def write(self, step: str, result: str, **facts: Any) -> None:  # noqa: ANN401 - JSON values
        """Append one line: UTC, step, result and its facts.

        Results are `started`, `done` and `failed`, and within a step `stands`, where replay does
        before it is promoted, `subscriptions`, before they are disabled, `connecting`, with roles
        that are let in, and `sent`, before rows are committed. Of the first step it can be
        `refused`, or `asked`, with what the operator said; of a recovery as a whole `abandoned`.
        """
        self._made(self.folder)
        line = {"utc": datetime.now(UTC).isoformat(), "step": step, "result": result, **facts}
        with self._writable(), self.path.open("ab") as stream:
            # the newline comes first too: a line that was cut short must not swallow this one
            stream.write(b"\n" + json.dumps(line, default=str).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _made(self, folder: Path) -> None:
        with self._writable():
            folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def _writable(self) -> Iterator[None]:
        """Say of a repository that is full, or cannot be written, what stops for it."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"cannot write {self.path}: {error}. No step is taken that is not written down"
            ) from error

    def run(self, step: str, act: Callable[[], dict[str, Any]], **about: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON values
        """Carry out a step and return its facts; it is written down how it began and ended."""
        self.write(step, "started", **about)
        try:
            facts = act()
        except BaseException as error:
            with contextlib.suppress(StoreError):  # what ended the step is what must be told
                self.write(step, "failed", error=f"{type(error).__name__}: {error}")
            raise
        self.write(step, "done", **facts)
        return facts

    def lines(self) -> Iterator[dict[str, Any]]:
        """Read what was written so far; a line that a crash cut short is left out."""
        if not self.path.exists():
            raise ConfigError(f"there is no recovery {self.recovery!r} in {self.folder.parent}")
        for line in self.path.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)

    def last(self, result: str) -> dict[str, Any] | None:
        """Find the newest line with that result, if there is one."""
        return next((line for line in reversed([*self.lines()]) if line["result"] == result), None)

    @property
    def asked(self) -> dict[str, Any]:
        """What the operator has said so far; nothing where nothing was written yet."""
        return (self.last("asked") or {}) if self.path.exists() else {}

    def count(self, step: str, result: str) -> int:
        """Count the lines of a step with that result; none where nothing was written yet."""
        if not self.path.exists():
            return 0
        return sum((line["step"], line["result"]) == (step, result) for line in self.lines())

    def done(self) -> dict[str, dict[str, Any]]:
        """Facts of the steps that were finished, by step."""
        return {line["step"]: line for line in self.lines() if line["result"] == "done"}

    def abandon(self, why: str) -> None:
        """Write down that nobody will go on with it, so that another recovery may begin."""
        self.write("recovery", _ABANDONED, why=why)

    def unfinished(self, first: str, last: str) -> bool:
        """Whether it went past its step `first`, which only looks, and never came to `last`."""
        done = self.done()
        return first in done and last not in done and not self.abandoned

    @property
    def abandoned(self) -> bool:
        """Whether somebody said that nobody will go on with it."""
        return self.last(_ABANDONED) is not None


@contextlib.contextmanager
def held(path: Path, refusal: str) -> Iterator[None]:
    """Hold a lock file for this process; RecoveryRefused, in these words, while another has it."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecoveryRefused(refusal) from None
        yield
