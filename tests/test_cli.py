"""The command line: it teaches, it refuses in one line, and its answers are the repository's."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures.stacks import toml
from fixtures.stacks.artifacts import installed
from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component
from pipeline.errors import ObjectMissing
from pipeline.postgres.replay.targets import SPELLINGS
from pipeline.postgres.wal import archiving
from pipeline.repository.sets import Repository, total_size
from pipeline.repository.store import FolderStore
from tests.recovery.history import Commit, Source

ROOT = Path(__file__).parents[1]
FAILED, INTERLOCK = 1, 10


@dataclass(frozen=True)
class Shop:
    """A server with a dropped table in its archive, and its configuration as a file."""

    source: Source
    toml: Path
    dropped: Commit

    def pipeline(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        return pipeline(*arguments, "--config", str(self.toml), stdin=stdin)


def pipeline(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """Run `python -m pipeline` as a person would; exit code, output, errors."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=kept | {"PYTHONPATH": str(ROOT), "COLUMNS": "120", "TERM": "dumb"},
    )
    return done.returncode, done.stdout, done.stderr


def one_line(errors: str) -> bool:
    return "Traceback" not in errors and errors.count("\n") == 1


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with NativeStack.launch(
        artifacts=installed(),
        components=[Component.POSTGRES],
        settings=lambda config: {**archiving.settings(config), "track_commit_timestamp": "on"},
    ) as stack:
        configuration = stack.folder / "pipeline.toml"
        toml.write(stack.config, configuration, password_file=stack.password_file)
        source = Source(stack).prepared()
        made = Shop(source, configuration, source.write("zero"))
        code, label, errors = made.pipeline("backup", "base")
        assert (code, errors) == (0, "")
        backup = Repository(FolderStore(stack.config.repository.path)).get(label.split()[-1])
        source.backups["one"] = backup
        with source.connect() as connection, connection.transaction():
            connection.execute("drop table documents")
            row = connection.execute("select pg_current_xact_id()::text").fetchone()
            assert row is not None
        dropped = Commit(int(row[0]), source.run("select now()"), source.position())
        source.expect(dropped.after)
        source.archive()
        yield Shop(source, configuration, dropped)


def test_help_teaches_the_targets() -> None:
    code, told, _ = pipeline("recover", "postgres", "--help")
    assert code == 0
    for line in SPELLINGS.splitlines():
        spelling, _, meaning = line.partition(" ")
        assert spelling in told
        assert " ".join(meaning.split()) in " ".join(told.split())


@pytest.mark.parametrize("arguments", [(), ("backup",), ("wal",), ("recover",)])
def test_a_command_alone_lists_what_it_can(arguments: tuple[str, ...]) -> None:
    _, told, errors = pipeline(*arguments)
    assert "Usage" in told + errors
    assert "Commands" in told + errors


@pytest.mark.parametrize(
    "arguments",
    [("list",), ("find", "--table", "x"), ("backup", "base"), ("recover", "postgres", "--plan")],
)
def test_a_missing_configuration_is_one_line_that_names_it(arguments: tuple[str, ...]) -> None:
    code, _, errors = pipeline(*arguments, "--config", "/nowhere/pipeline.toml")
    assert code == FAILED
    assert one_line(errors)
    assert "/nowhere/pipeline.toml" in errors


def test_list_tells_the_sets_to_people_and_to_programs(shop: Shop) -> None:
    backup = shop.source.backups["one"]
    size = total_size(backup.manifest.objects)
    code, told, _ = shop.pipeline("list")
    assert code == 0
    assert told.split()[0] == backup.label
    assert f"{size:,} bytes" in told
    code, told, _ = shop.pipeline("list", "--json")
    assert [json.loads(line) for line in told.splitlines()] == [
        {
            "label": backup.label,
            "kind": "base",
            "bytes": size,
            "incomplete": [],
            "finished": backup.manifest.finished.isoformat(),
        }
    ]


def test_find_prints_the_target_that_the_plan_understands(shop: Shop) -> None:
    code, told, _ = shop.pipeline("find", "--table", "documents")
    assert code == 0
    line = next(line for line in told.splitlines() if "drop" in line)
    assert f"xid {shop.dropped.xid}" in line
    assert "300 rows" in line
    target = line.rpartition("--to ")[2]
    code, told, _ = shop.pipeline("recover", "postgres", "--to", target, "--plan", "--without-cdc")
    assert code == 0
    assert shop.source.backups["one"].label in told
    assert f"target            {target}" in told


def test_a_plan_changes_nothing(shop: Shop) -> None:
    repository = shop.source.config.repository.path
    before = sorted(repository.rglob("*"))
    assert shop.pipeline("recover", "postgres", "--plan", "--without-cdc")[0] == 0
    assert sorted(repository.rglob("*")) == before
    assert shop.source.run("select count(*) from notes") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--to", "yesterday"), FAILED, "'yesterday' is not a recovery target"),
        (("--to", "time:2026-03-01T02:03:04"), FAILED, "needs its offset"),
        (("--to", "xid:4000000"), FAILED, "cannot be reached"),
        (("--to", "time:2020-01-01T00:00:00Z"), FAILED, "is consistent only from"),
        (("--accept-end", "later"), FAILED, "--accept-end: 'later' is not an LSN"),
        (("--resume", "never"), FAILED, "there is no recovery 'never'"),
        (("--identity", "4711"), INTERLOCK, "refused: typed '4711'"),
    ],
)
def test_what_is_refused_is_told_without_a_traceback(
    shop: Shop, arguments: tuple[str, ...], code: int, told: str
) -> None:
    found, _, errors = shop.pipeline("recover", "postgres", *arguments)
    assert (found, told in errors) == (code, True), errors
    assert "Traceback" not in errors
    assert shop.source.run("select count(*) from notes") == 1


def test_the_identity_is_asked_for_and_a_wrong_answer_refused(shop: Shop) -> None:
    code, told, errors = shop.pipeline("recover", "postgres", stdin="4711\n")
    assert code == INTERLOCK
    assert "System identifier of the server that will be replaced" in told
    assert "nothing was touched" in errors
    assert "--resume" not in told  # there is nothing to go on with


def test_a_loss_is_refused_with_the_word_that_would_accept_it(shop: Shop) -> None:
    source = shop.source
    expected = source.config.repository.path / "expected-end.json"
    kept = expected.read_bytes()
    expected.unlink()
    source.stack.stop(Component.POSTGRES)  # the end of a server that writes on is no end
    try:
        plan = ("recover", "postgres", "--plan", "--without-cdc")
        code, _, errors = shop.pipeline(*plan)
        assert code == INTERLOCK
        assert one_line(errors)
        end = errors.strip().rpartition("--accept-end ")[2]
        assert shop.pipeline(*plan, "--accept-end", end)[0] == 0
    finally:
        source.stack.start(Component.POSTGRES)
        expected.write_bytes(kept)


def test_a_server_that_is_down_is_one_line_and_no_backup(shop: Shop) -> None:
    shop.source.stack.stop(Component.POSTGRES)
    try:
        code, _, errors = shop.pipeline("backup", "base")
    finally:
        shop.source.stack.start(Component.POSTGRES)
    assert code == FAILED
    assert "Traceback" not in errors
    assert "Connection refused" in errors
    assert len(Repository(FolderStore(shop.source.config.repository.path)).labels()) == 1


def test_a_bad_set_is_named_and_never_left_out(shop: Shop) -> None:
    store = FolderStore(shop.source.config.repository.path)
    store.put("sets/base/base-bad/manifest.json", [b"{}"])
    try:
        code, _, errors = shop.pipeline("list")
    finally:
        store.delete("sets/base/base-bad/manifest.json")
    assert code == FAILED
    assert one_line(errors)
    assert "sets/base/base-bad/manifest.json" in errors
    with pytest.raises(ObjectMissing):
        store.open("sets/base/base-bad/manifest.json")
