"""Commands that write to a repository take turns, whoever started them and wherever they run."""

import subprocess
import sys
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cli.backup import backup
from pipeline.errors import ServerError
from pipeline.repository import marker, turns
from pipeline.repository.turns import turn

SOON = timedelta(milliseconds=200)
COMMANDS = (
    "backup all",
    "backup base",
    "backup logical",
    "backup cdc",
    "backup topics",
    "backup offsets",
    "backup schemas",
    "retain --yes",
)
HOLDER = """
import sys
from pipeline.repository.turns import turn
with turn(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> str:
    marker.make(str(tmp_path))
    return str(tmp_path)


def holder(root: str) -> "subprocess.Popen[str]":
    """Start another process that has its turn until its input ends."""
    command = [sys.executable, "-c", HOLDER, root]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_waits_for_the_first(root: str) -> None:
    with holder(root) as first:
        with pytest.raises(ServerError, match="another backup or retention"), turn(root, SOON):
            pass
        assert first.stdin is not None
        first.stdin.close()
        with turn(root):
            pass


@pytest.mark.parametrize("what", ["all", "base", "logical", "cdc"])
def test_a_backup_waits_for_others_and_never_for_itself(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that takes its turn twice would wait for itself for ever."""
    monkeypatch.setattr(turns, "LONGEST", SOON)
    marker.make(str(tmp_path / "repository"))
    config = tmp_path / "pipeline.toml"
    config.write_text(
        f'[postgres]\nhost = "{tmp_path}"\n[repository]\npath = "{tmp_path / "repository"}"\n'
    )
    told = CliRunner().invoke(app, ["backup", what, "--config", str(config)])
    assert told.exception is not None, "no server is there"
    assert "is at work" not in str(told.exception)


def test_a_holder_that_is_killed_holds_nothing(root: str) -> None:
    with holder(root) as first:
        first.kill()
        first.wait()
        with turn(root):
            pass


def test_a_repository_that_others_own_can_be_locked_by_who_may_read_it(root: str) -> None:
    Path(root, marker.MARKER).chmod(0o444)
    with turn(root), pytest.raises(ServerError), turn(root, SOON):
        pass


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_wait_before_they_ask_any_server(
    root: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "LONGEST", SOON)
    Path(root, "pipeline.toml").write_text(f'[repository]\npath = "{root}"\n')
    with turn(root):
        words = [*command.split(), "--config", f"{root}/pipeline.toml"]
        done = CliRunner().invoke(app, words)
    assert "another backup or retention is at work" in str(done.exception)


def test_every_backup_takes_one_turn_and_not_two() -> None:
    """A second one within the first would wait for it."""
    for home in vars(backup.info.cls)["homes"].values():
        command = getattr(import_module(home.module), home.name)
        assert hasattr(command, "__wrapped__"), home
        assert not hasattr(command.__wrapped__, "__wrapped__"), home
