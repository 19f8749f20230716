"""What PostgreSQL calls for each segment: the exit code is all that it hears."""

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.stacks.artifacts import shell_python
from pipeline.config import PipelineConfig, RepositoryConfig
from pipeline.postgres.server.tools import Tools, owner
from pipeline.postgres.wal import archiving, wal_command
from pipeline.repository import marker
from tests.segments import segment_bytes

NAME = "000000010000000000000001"
SEGMENT = segment_bytes(NAME, 7, b"records")
ANYONE = Tools()


class Installation:
    """The command as the server's owner sees it: a copied package, its own Python, no root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        package = Path(wal_command.__file__).parents[2]
        compiled = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package, folder / "lib" / "pipeline", ignore=compiled)
        self.script = folder / "lib/pipeline/postgres/wal/wal_command.py"
        self.repository = self.made("repository")
        marker.make(str(self.repository))
        self.view = self.made("view")

    def made(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir()
        return path

    def segment(self, records: bytes = b"records") -> Path:
        path = self.folder / NAME
        path.write_bytes(segment_bytes(NAME, 7, records))
        return path

    def call(self, *arguments: str | Path) -> tuple[int, str]:
        """Run as PostgreSQL would, and return exit code and standard error."""
        return self._run(["-S", "-E", self.script, *arguments], Path("/"))

    def documented(self, *arguments: str | Path) -> tuple[int, str]:
        """Run by its documented name, `pipeline wal …`."""
        return self._run(["-m", "pipeline", "wal", *arguments], self.folder / "lib")

    def _run(self, words: list[str | Path], where: Path) -> tuple[int, str]:
        ANYONE.own(self.folder)
        user = owner(None).pw_name if os.geteuid() == 0 else None
        command = [shell_python(user), *words]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=where, **ANYONE.identity()
        )
        return done.returncode, done.stderr


@pytest.fixture
def installed() -> Iterator[Installation]:
    with tempfile.TemporaryDirectory(prefix="wal-command-") as folder:
        yield Installation(Path(folder))


def test_a_pushed_segment_comes_back(installed: Installation) -> None:
    assert installed.call("push", installed.repository, installed.segment()) == (0, "")
    into = installed.folder / "RECOVERYXLOG"
    assert installed.call("get", installed.repository / "wal", NAME, into) == (0, "")
    assert into.read_bytes() == SEGMENT


def test_pushing_the_same_again_is_success_and_other_content_is_refused(
    installed: Installation,
) -> None:
    assert installed.call("push", installed.repository, installed.segment())[0] == 0
    assert installed.call("push", installed.repository, installed.segment()) == (0, "")
    code, told = installed.call("push", installed.repository, installed.segment(b"others"))
    assert code == 1
    assert NAME in told
    assert "other content" in told
    assert (installed.repository / "wal" / NAME).read_bytes() == SEGMENT


def test_a_push_that_failed_is_told_and_leaves_nothing(installed: Installation) -> None:
    code, told = installed.call("push", installed.repository, installed.folder / NAME)
    assert (code, "No such file" in told) == (1, True)
    (installed.repository / "wal").write_text("in the way")
    code, told = installed.call("push", installed.repository, installed.segment())
    assert (code, "not archived in" in told) == (1, True)
    assert {path.name for path in installed.repository.iterdir()} == {
        *(marker.MARKER, marker.WAL_OF),
        "wal",
    }


def test_absent_is_1_and_silent_because_the_server_asks_for_more_than_there_is(
    installed: Installation,
) -> None:
    into = installed.folder / "RECOVERYHISTORY"
    assert installed.call("get", installed.view, "00000002.history", into) == (1, "")
    assert not into.exists()


def view_gone(installed: Installation) -> None:
    installed.view.rmdir()


def link_broken(installed: Installation) -> None:
    (installed.view / NAME).symlink_to(installed.folder / "absent")


def unreadable(installed: Installation) -> None:
    """Reading this file is an input/output error, for whoever reads it."""
    (installed.view / NAME).symlink_to("/proc/self/mem")


def a_folder(installed: Installation) -> None:
    (installed.view / NAME).mkdir()


def unlisted(installed: Installation) -> None:
    """What cannot be looked into cannot be said to lack a file."""
    installed.view.rmdir()
    installed.view.symlink_to(installed.view)


def destination_in_the_way(installed: Installation) -> None:
    (installed.view / NAME).write_bytes(b"records")
    (installed.folder / "RECOVERYXLOG").mkdir()


@pytest.mark.parametrize(
    "trouble",
    [
        view_gone,
        link_broken,
        unreadable,
        a_folder,
        destination_in_the_way,
        unlisted,
    ],
    ids=lambda trouble: trouble.__name__,
)
def test_what_could_not_be_found_out_is_never_absent(
    installed: Installation, trouble: object
) -> None:
    """Any code up to 125 means "there is none": the server would end its recovery early."""
    assert callable(trouble)
    trouble(installed)
    into = installed.folder / "RECOVERYXLOG"
    code, told = installed.call("get", installed.view, NAME, into)
    assert code == 200
    assert told
    assert not into.is_file()


def test_an_upgrade_under_way_stops_a_push_and_no_recovery(installed: Installation) -> None:
    """`get` needs no other file of the package; `push` must not answer 0 without its own."""
    (installed.script.parents[2] / "repository/durable.py").unlink()
    code, told = installed.call("push", installed.repository, installed.segment())
    assert (code, "pipeline.repository.durable" in told) == (200, True)
    (installed.view / NAME).write_bytes(b"records")
    into = installed.folder / "RECOVERYXLOG"
    assert installed.call("get", installed.view, NAME, into) == (0, "")


def test_the_documented_names_keep_the_contract_whatever_else_is_broken(
    installed: Installation,
) -> None:
    """The command line answers 1 or 2 for its own errors, which promotes a server that replays."""
    shutil.rmtree(installed.script.parents[2] / "cli")
    assert installed.documented("push", installed.repository, installed.segment()) == (0, "")
    view, into = installed.repository / "wal", installed.folder / "RECOVERYXLOG"
    assert installed.documented("get", view, NAME, into) == (0, "")
    assert installed.documented("get", view, "00000002.history", into) == (1, "")
    assert installed.documented("get", installed.folder / "gone", NAME, into)[0] == 200
    assert installed.documented("get", view, NAME)[0] == 200


def test_the_server_writes_into_a_file_of_its_own(installed: Installation) -> None:
    """It recycles what it got: a link would let it write into the repository."""
    installed.call("push", installed.repository, installed.segment())
    archived, into = installed.repository / "wal" / NAME, installed.folder / "RECOVERYXLOG"
    (installed.view / NAME).symlink_to(archived)
    installed.call("get", installed.view, NAME, into)
    with into.open("r+b") as stream:
        stream.write(b"recycled")
    assert archived.read_bytes() == SEGMENT


@pytest.mark.parametrize(
    "arguments", [[], ["get", "only-one"], ["push"], ["get", "a", "b", "c", "d"], ["fetch", "a"]]
)
def test_a_wrong_call_is_a_failure_that_teaches(
    installed: Installation, arguments: list[str]
) -> None:
    code, told = installed.call(*arguments)
    assert code == 200
    assert "restore_command" in told


def restore_command(script: Path, view: Path, name: str) -> int:
    """Run what a recovery gives to the server, and return what the server hears."""
    ours = shlex.join([str(shell_python(None)), "-S", "-E", str(script)])
    config = PipelineConfig(repository=RepositoryConfig(path=view, wal_command=ours))
    line = archiving.get_command(config, view).replace("%f", name)
    into = view.parent / "RECOVERYXLOG"
    words = ["/bin/sh", "-c", line.replace("%p", str(into))]
    return subprocess.run(words, check=False).returncode


BROKEN = {"missing": Path.unlink, "no Python": lambda path: path.write_text("def")}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
def test_a_broken_installation_is_not_an_archive_that_ends(
    installed: Installation, damage: Callable[[Path], object]
) -> None:
    """Python itself ends with 2 and 1 then, and any code up to 125 would promote."""
    shutil.copy(installed.segment(), installed.view / NAME)
    assert restore_command(installed.script, installed.view, NAME) == 0
    assert restore_command(installed.script, installed.view, "00000002.history") == 1
    dangling = "000000010000000000000009"
    (installed.view / dangling).symlink_to(installed.view / "gone")
    damage(installed.script)
    assert restore_command(installed.script, installed.view, NAME) == 200
    assert restore_command(installed.script, installed.view, dangling) == 200
    shutil.rmtree(installed.view)
    assert restore_command(installed.script, installed.view, NAME) == 200
