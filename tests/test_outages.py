"""A fault against a stack touches nothing outside the run's own folder."""

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import cast

import pytest

from fixtures.faults.outages import damage_newest_backup, own_folder
from fixtures.scratch import FaultRefused
from fixtures.stacks.protocol import Stack
from pipeline.config import PipelineConfig, PostgresConfig, RepositoryConfig


@dataclass
class Elsewhere:
    """What a fault asks before it acts: a stack whose servers keep their data outside its run."""

    folder: Path
    config: PipelineConfig


@pytest.fixture
def elsewhere(tmp_path: Path) -> Stack:
    backup = tmp_path / "repository/sets/base/base-1/base.tar.zst"
    backup.parent.mkdir(parents=True)
    backup.write_bytes(b"somebody's backup")
    (tmp_path / "run").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "run/data").symlink_to(tmp_path / "data")
    config = PipelineConfig.model_construct(
        postgres=PostgresConfig(data=tmp_path / "run/data"),
        repository=RepositoryConfig(path=tmp_path / "repository"),
    )
    return cast("Stack", Elsewhere(tmp_path / "run", config))


def test_a_data_folder_outside_the_run_is_refused_even_behind_a_link(elsewhere: Stack) -> None:
    with pytest.raises(FaultRefused, match="does not lie inside the run's folder"):
        own_folder(elsewhere)


def test_a_backup_outside_the_run_is_refused_and_unchanged(elsewhere: Stack) -> None:
    with pytest.raises(FaultRefused, match="no base backup inside the run's folder"):
        damage_newest_backup(elsewhere, Random(1))
    backup = elsewhere.config.repository.path / "sets/base/base-1/base.tar.zst"
    assert backup.read_bytes() == b"somebody's backup"
