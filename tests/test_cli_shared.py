"""What commands refuse before they ask a server, and how they say that one can go on."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cli.resumable import finished, resumable
from pipeline.errors import BeginAgain, ConfigError, LossNotAccepted, RecoveryRefused, RestoreError
from pipeline.repository.journal import Journal
from pipeline.repository.kinds import LATEST, chosen
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore

AGAIN = "to go on: pipeline recover …"


@pytest.fixture
def notes(tmp_path: Path) -> BackupSet:
    """A set of a kind that no command restores."""
    return Repository(FolderStore(tmp_path)).begin("notes").commit({}, [])


def refusal(folder: Path, *words: str) -> str:
    """Run a command that must fail with an error of ours; return it."""
    (folder / "pipeline.toml").write_text(f'[repository]\npath = "{folder}"\n')
    done = CliRunner().invoke(app, [*words, "--config", str(folder / "pipeline.toml")])
    assert isinstance(done.exception, ConfigError), done.output
    return str(done.exception)


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("restore database --into x --from", "logical"),
        ("restore schema --into x --from", "logical"),
        ("restore globals --from", "logical"),
        ("restore table --table x --from", "logical"),
        ("restore offsets --from", "offsets"),
        ("recover topics --plan --from", "topics"),
        ("recover topics --identity x --from", "topics"),
    ],
)
def test_a_set_of_another_kind_is_refused_by_name(
    tmp_path: Path, notes: BackupSet, command: str, kind: str
) -> None:
    told = refusal(tmp_path, *command.split(), notes.label)
    assert told == f"{notes.label} is a backup of notes, expected one of {kind}"


def test_latest_is_the_newest_of_the_kind(notes: BackupSet) -> None:
    sets = Repository(notes.store)
    newest = sets.begin("notes").commit({}, [])
    sets.begin("other").commit({}, [])
    assert chosen(sets, "notes", LATEST) == newest
    assert chosen(sets, "notes", notes.label) == notes


@pytest.mark.parametrize(
    "command",
    ["find --table x --since", "restore topic --topic x --from-time"],
)
def test_a_moment_without_its_zone_is_refused(tmp_path: Path, command: str) -> None:
    *words, option = command.split()
    moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    assert refusal(tmp_path, *words, option, moment) == f"{option} needs its offset from UTC"


@pytest.mark.parametrize(
    "command",
    [
        "recover postgres --to latest",
        "recover postgres --without base-1",
        "recover topics --origin abc",
        "recover topics --topic orders",
        "recover topics --plan",
        "restore table --table orders",
        "restore table --to latest",
        "restore table --from logical-1",
        "restore topic --as orders-again",
        "restore topic --from-offset 0",
    ],
)
def test_what_a_resumed_recovery_would_not_follow_is_refused(tmp_path: Path, command: str) -> None:
    """It would go on as it was asked at first, and whoever said otherwise would not learn of it."""
    told = refusal(tmp_path, *command.split(), "--resume", "one")
    assert f"leave {command.split()[2]} out" in told


@pytest.mark.parametrize("done", ["", "look", "look plan", "look plan restore"])
def test_what_was_broken_off_says_how_to_go_on_once_it_had_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], done: str
) -> None:
    journal = Journal(tmp_path / "one")
    for step in done.split():
        journal.write(step, "done")
    with pytest.raises(RestoreError), resumable(journal, "plan", AGAIN):
        raise RestoreError
    assert capsys.readouterr().out.splitlines() == ([AGAIN] if "plan" in done else [])


def test_what_ended_names_its_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(tmp_path / "one")
    with resumable(journal, "plan", AGAIN):
        journal.write("plan", "done")
    assert capsys.readouterr().out == f"journal: {journal.path}\n"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (BeginAgain("begin a new one"), []),
        (RecoveryRefused("another identity"), []),
        (LossNotAccepted("less", "--accept-end 0/5"), [f"{AGAIN} --accept-end 0/5"]),
    ],
)
def test_how_to_go_on_is_told_only_where_it_can_help(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Exception, told: list[str]
) -> None:
    journal = Journal(tmp_path / "one")
    journal.write("plan", "done")
    with pytest.raises(type(error)), resumable(journal, "plan", AGAIN):
        raise error
    assert capsys.readouterr().out.splitlines() == told


def test_what_came_to_its_end_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(tmp_path / "one")
    journal.write("plan", "done")
    assert not finished(journal, "serve")
    journal.write("serve", "done")
    assert finished(journal, "serve")
    assert capsys.readouterr().out.startswith("one came to its end at ")


def test_options_before_a_command_of_verify_are_refused_and_not_passed_over() -> None:
    done = CliRunner().invoke(app, ["verify", "--config", "other.toml", "consistency"])
    assert (done.exit_code, "stand behind it" in done.output) == (2, True), done.output
