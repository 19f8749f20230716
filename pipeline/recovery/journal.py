"""The audit trail of one recovery: JSON lines in the repository, and what resuming needs."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError

FILE = "journal.jsonl"


class Journal:
    """Append-only and synced line by line: after a power cut the next run knows where it stood."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE

    @property
    def recovery(self) -> str:
        """Identity of the recovery: the name of its folder."""
        return self.folder.name

    def write(self, step: str, result: str, **facts: Any) -> None:  # noqa: ANN401 - JSON values
        """Append one line: UTC, step, result and its facts.

        Results are `started`, `done` and `failed`, and within a step `stands`, where replay does
        before it is promoted, and `sent`, before rows are committed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        line = {"utc": datetime.now(UTC).isoformat(), "step": step, "result": result, **facts}
        with self.path.open("ab") as stream:
            # the newline comes first too: a line that was cut short must not swallow this one
            stream.write(b"\n" + json.dumps(line, default=str).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())

    def run(self, step: str, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Carry out a step and return its facts; it is written down how it began and ended."""
        self.write(step, "started")
        try:
            facts = act()
        except BaseException as error:
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

    def done(self) -> dict[str, dict[str, Any]]:
        """Facts of the steps that were finished, by step."""
        return {line["step"]: line for line in self.lines() if line["result"] == "done"}
