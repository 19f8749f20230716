"""Run a command as a process of its own, kill it at a random moment, and judge the repository."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import IO, Any, Protocol

from pipeline.postgres.base import chain
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore, HashedStream
from tests.recovery.history import Source

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0  # seconds after which a command hangs
LATE = 10  # kills that may come too late, beside as many as hit


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Span:
    """Seconds to the first word of a command, and from there to its end: where a kill may fall."""

    silent: float
    working: float


@dataclass(frozen=True)
class Pipeline:
    """`python -m pipeline …` on one configuration."""

    source: Source
    configuration: Path
    folder: Path

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "pipeline", *words, "--config", str(self.configuration)]

    def run(self, *words: str, limit: int | None = None) -> Ended:
        """Run to the end; `limit` is the size in bytes that no file of it may pass."""
        command = self.command(*words)
        if limit is not None:  # the shell counts in KiB; Python ignores the signal, and sees EFBIG
            command = ["bash", "-c", f'ulimit -f {limit >> 10}; exec "$@"', "bash", *command]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE, **self.place()
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def place(self) -> dict[str, Any]:
        """Work in the run's folder, so that nothing outlives the run; say each line at once."""
        folder = self.source.stack.folder
        ours = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "TMPDIR": str(folder)}
        return {"cwd": folder, "env": os.environ | ours}

    @property
    def repository(self) -> Repository:
        return Repository(FolderStore(self.folder))


class Story(Protocol):
    """One command that is killed again and again, and what must hold whatever the moment."""

    def command(self) -> list[str]:
        """Arrange what the command needs, and return it."""

    def prove(self) -> None:
        """Nothing incomplete is accepted, and nothing acknowledged is lost."""

    def complete(self, out: str) -> None:
        """After a whole run: it did its work, and what killed ones left is gone."""

    def accompany(self, process: "subprocess.Popen[str]") -> None:  # noqa: ARG002 - most end
        """Stay beside a whole run; one that never ends by itself is told to here."""
        return


@contextmanager
def running(command: list[str], place: dict[str, Any]) -> Iterator["subprocess.Popen[str]"]:
    """Run in a session of its own, and leave it dead."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **place,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def whole_run(story: Story, place: dict[str, Any]) -> tuple[Span, str]:
    """Run to the end, and measure; any error of the command is one of the test."""
    command, begun = story.command(), time.monotonic()
    with running(command, place) as process:
        first = _reading(process.stdout).readline()
        spoke = time.monotonic()
        story.accompany(process)
        rest = _last_words(process)
        ended = time.monotonic()
    if not first:
        return Span(0.0, ended - begun), ""
    return Span(spoke - begun, ended - spoke), first + rest


def _last_words(process: "subprocess.Popen[str]") -> str:
    """What it said until it ended, and well."""
    rest, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, f"{process.args!r}: {err}"
    assert "Traceback" not in err, err
    return rest


def killed(
    command: list[str], place: dict[str, Any], span: Span, rng: Random
) -> tuple[str, str | None, Span]:
    """Kill it at a moment of its span; the moment, and what one said that was done before it.

    That one was shorter than it was known to be: the span to aim at next ends at that moment.
    """
    silent = rng.random() < 0.2 and span.silent > 0
    moment = rng.uniform(0, span.silent if silent else span.working)
    first = ""
    with running(command, place) as process:
        if span.silent and not silent:
            first = _reading(process.stdout).readline()
        try:
            process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        hit = process.wait() == -signal.SIGKILL
        out = None if hit else first + _last_words(process)
    since = "first word" if span.silent and not silent else "start"
    shorter = replace(span, silent=moment) if silent else replace(span, working=moment)
    return f"killed {moment:.3f} s after its {since}", out, span if hit else shorter


def repeat(story: Story, place: dict[str, Any], kills: int, seed: int) -> None:
    """Kill that many times, judge each time, and have the next run heal it.

    A kill that comes too late is none, and the run that it found done was one like any other.
    """
    rng, late = Random(f"{seed} {type(story).__name__}"), 0
    span, out = whole_run(story, place)
    story.complete(out)
    for number in range(kills):
        while True:
            told, done, span = killed(story.command(), place, span, rng)
            if done is None:
                break
            late += 1
            assert late <= LATE + kills, f"seed {seed}: {late} kills came too late"
            story.complete(done)
        try:
            story.prove()
            span, out = whole_run(story, place)
            story.complete(out)
        except BaseException as error:
            error.add_note(f"kill {number} of seed {seed}: {told}")
            raise


def whole_sets(repository: Repository, acknowledged: set[str]) -> None:
    """Every set that is listed has every byte that its manifest names; none has gone."""
    listed = set(repository.labels())
    assert acknowledged <= listed, f"lost: {acknowledged - listed}"
    for label in listed:
        for entry in repository.get(label).manifest.objects:
            with repository.store.open(entry.key) as stream:
                assert HashedStream(stream).damage(entry) is None


def whole_chains(repository: Repository) -> None:
    """Every base backup has the one that it builds on, and this has its own."""
    broken = {found.label: chain.broken(found) for found in repository.sets("base")}
    assert not any(broken.values()), broken


def _reading(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
