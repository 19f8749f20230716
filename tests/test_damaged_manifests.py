"""A manifest that cannot be read is named, and what goes on without it goes on."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config import PipelineConfig, RepositoryConfig
from pipeline.errors import BackupError, ConfigError, TargetUnreachable
from pipeline.postgres.base import chain
from pipeline.postgres.replay.targets import Target
from pipeline.repository.sets import MANIFEST, Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks.plan import make
from tests.sets import DAY, committed


@pytest.fixture
def bad(tmp_path: Path) -> str:
    """The label of the one between two others."""
    labels = [committed(tmp_path, "base", age * DAY).label for age in (3, 2, 1)]
    (tmp_path / "sets/base" / labels[1] / MANIFEST).write_text("{")
    return labels[1]


@pytest.fixture
def pipeline(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    (tmp_path / "pipeline.toml").write_text(f'[repository]\npath = "{tmp_path}"\n')

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, [*words, "--config", str(tmp_path / "pipeline.toml")])
        assert done.exception is None or isinstance(
            done.exception, (SystemExit, BackupError, ConfigError)
        ), repr(done.exception)
        return done.exit_code, done.output or str(done.exception)

    return run


def test_list_names_it_between_the_others(
    bad: str, pipeline: Callable[..., tuple[int, str]]
) -> None:
    code, told = pipeline("list")
    assert code == 1
    assert [line.split()[0] for line in told.splitlines()][1] == bad
    assert len(told.splitlines()) == 3


def test_an_incremental_backup_is_told_why_it_has_no_parent(bad: str, tmp_path: Path) -> None:
    server = {"server_version_num": 180000, "summarize_wal": True}
    with pytest.raises(BackupError, match=f"{bad}: .*not a manifest") as none:
        chain.parent_for(Repository(FolderStore(tmp_path)), server)
    assert len(str(none.value).splitlines()) == 4


def test_a_recovery_passes_it_over(bad: str, tmp_path: Path) -> None:
    config = PipelineConfig(repository=RepositoryConfig(path=tmp_path))
    with pytest.raises(TargetUnreachable, match=f"{bad}: it cannot be read") as none:
        make(config, Target.parse("latest"))
    assert len(str(none.value).splitlines()) == 4


@pytest.mark.parametrize("command", ["recover postgres", "recover topics", "restore topic"])
@pytest.mark.parametrize("name", ["../../x", "..", "", "/etc", "nothing"])
def test_a_recovery_that_is_not_there_is_refused_by_its_plain_name(
    tmp_path: Path, pipeline: Callable[..., tuple[int, str]], command: str, name: str
) -> None:
    (tmp_path.parent / "x").mkdir(exist_ok=True)
    (tmp_path.parent / "x/journal.jsonl").write_text("{}")
    code, told = pipeline(*command.split(), "--resume", name)
    assert code == 1
    assert told.startswith(f"there is no recovery {name!r} in ")
