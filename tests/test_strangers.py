"""Who else works in a stack's folder: neither its servers, nor what they start while we look."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.stacks.native import NativeStack
from fixtures.stacks.reaper import processes_inside


class Place:
    """A folder of a run, and in it the data of one server that starts a process at any moment."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.data, self._stack = folder, folder / "data", stack
        self.data.mkdir()

    def start(self, where: Path) -> int:
        process = self._stack.enter_context(subprocess.Popen(["/bin/sleep", "600"], cwd=where))
        self._stack.callback(process.kill)
        return process.pid

    def processes(self) -> list[int]:
        """What the server's processes are; right behind the look it starts another one."""
        found = processes_inside(self.data)
        self.start(self.data)
        return found

    def strangers(self) -> list[str]:
        stack: Any = SimpleNamespace(folder=self.folder, _servers={"postgres": self})
        return NativeStack.strangers(stack)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(tmp_path, stack)


def test_what_a_server_starts_while_we_look_is_no_stranger(place: Place) -> None:
    """An archive_command, for one: the server calls it for each segment."""
    place.start(place.data)
    assert place.strangers() == []


def test_a_process_that_works_elsewhere_in_the_folder_is_told(place: Place) -> None:
    pid = place.start(place.folder)
    (told,) = place.strangers()
    assert told.startswith(f"process {pid} (/bin/sleep 600")
