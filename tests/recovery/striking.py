"""A plug that is pulled at the nth outside call of a step: what a recovery does to the world.

From then on every further call fails as well, those of `finally` included: a process that is killed
tidies nothing up, and leaves the servers running that it had started.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from pipeline.cdc import reconcile
from pipeline.postgres.server.tools import Tools
from pipeline.repository.journal import Journal
from pipeline.repository.store import FolderStore
from tests.recovery.interrupted import Power

_OUTSIDE: tuple[tuple[Any, str], ...] = (
    (psycopg, "connect"),
    (psycopg.Cursor, "execute"),
    (psycopg.Cursor, "copy"),
    (httpx.Client, "request"),
    (reconcile, "write_tombstones"),
    (Tools, "run"),
    (Tools, "popen"),
    (FolderStore, "put"),
    (FolderStore, "open"),
    (os, "kill"),
    *((Path, name) for name in ("mkdir", "rename", "replace", "rmdir", "symlink_to")),
    *((Path, name) for name in ("touch", "unlink", "write_bytes", "write_text")),
)
_ENDED = {"done", "failed"}


@dataclass
class Plug:
    """Pulled before the call number `at` of a step, or behind it; `calls` were made in it."""

    step: str
    at: int
    calls: list[str] = field(default_factory=list)
    pulled: bool = False
    ended: bool = False
    connections: list[psycopg.Connection[Any]] = field(default_factory=list)
    _inside: bool = False
    _thread: int = field(default_factory=threading.get_ident)

    def passes(self, name: str) -> None:
        """Raise Power where the current is gone, or ends with this call."""
        if threading.get_ident() != self._thread:
            return
        if self._inside and not self.pulled:
            self.calls.append(name)
            self.pulled = len(self.calls) == self.at
        if self.pulled or self.ended:
            raise Power

    def turn(self, step: str, result: str) -> None:
        """Take in what the journal has just got; behind the step the plug is pulled in any case."""
        if step == self.step:
            self._inside = result not in _ENDED
            if result == "done":
                self.ended = True
                raise Power

    @contextmanager
    def plugged(self) -> Iterator[None]:
        """Have every outside call ask the plug until the block ends."""
        with pytest.MonkeyPatch.context() as patch:
            for owner, name in _OUTSIDE:
                patch.setattr(owner, name, self._asking(name, getattr(owner, name)))
            patch.setattr(Journal, "write", self._writing(Journal.write))
            try:
                yield
            finally:  # as the kernel does for a process that is gone
                for connection in self.connections:
                    connection.close()

    def _asking(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401 - passed on
            self.passes(name)
            answer = function(*arguments, **keywords)
            if isinstance(answer, psycopg.Connection):
                self.connections.append(answer)
            return answer

        return call

    def _writing(self, write: Callable[..., None]) -> Callable[..., None]:
        def call(journal: Journal, step: str, result: str, **facts: object) -> None:
            self.passes(f"journal: {result}")
            write(journal, step, result, **facts)
            self.turn(step, result)

        return call


def struck(step: str, at: int, run: Callable[[], None]) -> str | None:
    """Run until the plug is pulled; the call before which it was, or None where the step ended."""
    plug = Plug(step, at)
    with pytest.raises(Power), plug.plugged():
        run()
    return plug.calls[-1] if plug.pulled else None


def strikes_everywhere(step: str, run: Callable[[], None], *, every: int = 1) -> list[str]:
    """Strike at the first call of a step, then at a later one, until it comes to its end."""
    told = list[str]()
    while (call := struck(step, every * len(told) + 1, run)) is not None:
        told.append(call)
    return told
