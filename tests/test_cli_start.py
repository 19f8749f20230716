"""The command line starts with what it needs, and its lists say what the commands say."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from pipeline.cli import app

OTHERS = ("kafka", "confluent_kafka", "httpx")  # than PostgreSQL
HEAVY = ("psycopg", "zstandard", *OTHERS)


def lazy(group: Any = None) -> Iterator[tuple[str, Any, str]]:  # noqa: ANN401 - typer's own
    """Every command that is imported when it is called, and what a list says of it before."""
    group = group or get_command(app)
    for name, home in getattr(group, "homes", {}).items():
        command = group.commands[name]
        yield name, command, home.help
        yield from lazy(command)


def test_a_list_says_of_each_command_what_its_own_help_begins_with() -> None:
    found = list(lazy())
    assert len(found) > 18
    for name, command, told in found:
        assert " ".join(command.help.split("\n\n")[0].split()) == told, name


def test_a_list_names_every_command_of_a_family() -> None:
    told = CliRunner().invoke(app, ["backup", "--help"])
    assert told.exit_code == 0
    for name in ("base", "logical", "topics", "offsets"):
        assert f" {name} " in told.output


def test_a_name_that_is_no_command_is_refused_without_an_import() -> None:
    told = CliRunner().invoke(app, ["backup", "nonsense"])
    assert told.exit_code == 2
    assert "No such command 'nonsense'" in told.output


def test_a_command_imports_its_own_family_only() -> None:
    homes: Mapping[str, tuple[str, ...]] = {
        "--help": HEAVY,
        "backup": HEAVY,
        "restore": HEAVY,
        "backup base --help": (*OTHERS, "pipeline.runbooks"),
        "wal receive --help": (*OTHERS, "pipeline.runbooks"),
        "find --help": (*OTHERS, "pipeline.runbooks"),
        "verify --help": HEAVY,
        "backup topics --help": ("pipeline.postgres.base.restore", "pipeline.runbooks.plan"),
    }
    for words, unwanted in homes.items():
        script = (
            f"import sys; sys.argv = ['pipeline', *{words.split()!r}]\n"
            "from pipeline.__main__ import main\n"
            "try: main()\n"
            f"except SystemExit: print([n for n in {unwanted!r} if n in sys.modules])\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "[]", words


def test_paragraphs_of_a_help_fill_the_terminal() -> None:
    """Those of commands and of families; a list of spellings keeps its lines."""
    seen = 0
    for name, command, _ in lazy():
        for each in (command, *getattr(command, "commands", {}).values()):
            for paragraph in (each.help or "").split("\n\n"):
                assert paragraph.startswith("\b") or "\n" not in paragraph, name
                seen += 1
    assert seen > 40
    told = CliRunner().invoke(app, ["recover", "postgres", "--help"]).output
    assert "\n latest   " in told
