"""`pipeline verify` on what a real server wrote: sound, and not sound once a bit of it differs."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner

from fixtures.stacks import toml
from pipeline.cli import app
from pipeline.config import PipelineConfig
from tests.recovery.history import History, copied, flipped


@pytest.fixture
def archive(history: History, tmp_path: Path) -> PipelineConfig:
    """A copy of the repository that the test may damage."""
    folder = history.source.stack.folder / "scratch" / tmp_path.name
    return history.elsewhere(copied(history.repository, folder, history.source.tools))


def verified(history: History, config: PipelineConfig) -> tuple[int, str]:
    path = config.repository.path.with_suffix(".toml")
    toml.write(config, path, password_file=history.source.stack.password_file)
    done = CliRunner().invoke(app, ["verify", "--config", str(path)])
    return done.exit_code, done.output


def base_object(history: History, _config: PipelineConfig) -> str:
    return history.source.backups["first"].manifest.objects[0].key


def segment(history: History, _config: PipelineConfig) -> str:
    return f"wal/{history.segments['behind']}"


def test_a_real_repository_is_sound_and_read_once(
    history: History, archive: PipelineConfig
) -> None:
    for _ in range(2):
        code, told = verified(history, archive)
        assert (code, "sound: 2 backup sets" in told) == (0, True), told
    assert "read now   0 of" in told


@pytest.mark.parametrize("subject", [base_object, segment])
def test_a_bit_of_a_real_repository_is_named(
    history: History,
    archive: PipelineConfig,
    subject: Callable[[History, PipelineConfig], str],
    seed: int,
) -> None:
    assert verified(history, archive)[0] == 0
    key = subject(history, archive)
    path = archive.repository.path / key
    flipped(path, Random(seed).randrange(path.stat().st_size))
    code, told = verified(history, archive)
    assert (code, f"damaged    {key}: expected" in told) == (1, True), told
