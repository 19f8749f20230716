"""The written documents agree with the code: links resolve, quoted commands and tests exist."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from pipeline.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
ELLIPSIS = "…"

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_PROMPT = re.compile(r"^\s*(?:\$ |ExecStart=)?((?:[A-Z_]+=\S+ )*)")
_PIPELINE = re.compile(r"(?:/\S+/|python -m )?pipeline(?= |$)")
_PATH = re.compile(r"(?:pipeline|fixtures|checks|drills|tests|tools|bench|docs)/[\w./*-]*")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def heading(line: str) -> str:
    """The anchor that a page gets for a heading."""
    kept = re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower())
    return kept.replace(" ", "-")


def quoted(page: Path) -> Iterator[str]:
    """Yield spans of code, and the lines of code blocks, without prompt or environment."""
    text = page.read_text()
    for language, block in _FENCE.findall(text):
        if language not in {"mermaid", "toml"}:
            lines = block.replace("\\\n", " ").splitlines()
            yield from (_PROMPT.sub("", line) for line in lines)
    yield from _SPAN.findall(_FENCE.sub("", text))


def words(command: str) -> list[str]:
    """Split as a shell does, up to what is no argument any more; […] marks what may be left out."""
    told = re.sub(r"\[(--?[^\]]*)\]", r"\1", command)
    told = re.split(r" #|;| \| | && |  -> ", told, maxsplit=1)[0]
    return shlex.split(told)


def wrong(command: str) -> str | None:
    """Say what a quoted `pipeline …` has that the program has not, or None."""
    left = words(_PIPELINE.sub("", command, count=1))
    node: Any = get_command(app)
    while hasattr(node, "commands"):
        own = {name for option in node.params for name in option.opts}
        if not left or left[0] in {"--help", ELLIPSIS, *own}:
            return None
        if left[0] not in node.commands:
            return f"no command {left[0]!r}; there are {', '.join(node.commands)}"
        node = node.commands[left.pop(0)]
    return next(problems(node.params, left), None)


def problems(params: list[Any], left: list[str]) -> Iterator[str]:
    """Walk the words behind a command's name as its parser would."""
    options = {name: p for p in params for name in (*p.opts, *p.secondary_opts)}
    arguments = sum(p.param_type_name == "argument" for p in params)
    while left:
        name, given, value = left.pop(0).partition("=")
        if name in {ELLIPSIS, "--help"}:
            continue
        if not name.startswith("-"):
            arguments -= 1
            if arguments < 0:
                yield f"takes no argument {name!r}"
        elif name not in options:
            yield f"no option {name}; there are {', '.join(options)}"
        elif not options[name].is_flag:
            if not given and not left:
                yield f"{name} takes a value"
                return
            yield from not_a_choice(
                name, options[name].type_descriptor.annotation, value or left.pop(0)
            )


def not_a_choice(name: str, kind: Any, value: str) -> Iterator[str]:  # noqa: ANN401 - typer's own
    if isinstance(kind, type) and issubclass(kind, Enum) and value != ELLIPSIS:
        choices = [str(one.value) for one in kind]
        if value not in choices:
            yield f"{name} {value}: one of {', '.join(choices)}"


@each_page
def test_links_resolve(page: Path) -> None:
    broken = []
    for link in _LINK.findall(_FENCE.sub("", page.read_text())):
        name, _, anchor = link.partition("#")
        if "://" in name:
            continue
        target = (page.parent / name).resolve() if name else page
        if not target.exists():
            broken.append(link)
        elif anchor and target.suffix == ".md":
            lines = target.read_text().splitlines()
            if anchor not in {heading(line) for line in lines if line.startswith("#")}:
                broken.append(link)
    assert not broken


@each_page
def test_quoted_pipeline_commands_parse(page: Path) -> None:
    told = [command for command in quoted(page) if _PIPELINE.match(command)]
    found = {command: wrong(command) for command in told if "<-" not in command}
    assert not {command: problem for command, problem in found.items() if problem}


@pytest.mark.parametrize(
    "command",
    [
        "pipeline bakup base",
        "pipeline backup base --incrementl",
        "pipeline restore topic clicks",
        "pipeline restore topic --mode fast",
        "pipeline recover postgres --to",
    ],
)
def test_a_command_that_is_not_there_is_told(command: str) -> None:
    assert wrong(command)


@each_page
def test_quoted_files_and_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    missing = []
    for code in quoted(page):
        if _PATH.fullmatch(code) and not list(ROOT.glob(code)):
            missing.append(code)
        if (made := re.match(r"make ([a-z]+)\b", code)) and made[1] not in targets:
            missing.append(code)
    assert not missing


@pytest.fixture(scope="module")
def ids() -> list[str]:
    """Every drill and every proof of a check that pytest collects."""
    command = [sys.executable, "-m", "pytest", "checks/", "drills/", "--collect-only", "-q"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "::" in line]


@each_page
def test_quoted_drills_and_checks_are_collected(page: Path, ids: list[str]) -> None:
    missing = []
    for command in quoted(page):
        if not command.startswith("pytest "):
            continue
        told = words(command)
        paths = [word for word in told if _PATH.match(word)]
        if any(not (ROOT / path.partition("::")[0]).exists() for path in paths):
            missing.append(command)
        if any(path.startswith("tests/") for path in paths):
            continue  # collecting all of them takes longer than it is worth
        chosen = [one for one in ids if not paths or one.startswith(tuple(paths))]
        names = names_of(told[told.index("-k") + 1] if "-k" in told else "")
        if not chosen or any(not [one for one in chosen if name in one] for name in names):
            missing.append(command)
    assert not missing


def names_of(expression: str) -> set[str]:
    """The parts of names in a -k expression; <…> stands for one that a reader puts in."""
    found = set(re.findall(r"[^\s()]+", expression)) - {"and", "or", "not"}
    return {name for name in found if not name.startswith(("<", ELLIPSIS))}
