"""One server for all that is killed here, with enough in it that a backup takes a while."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from fixtures.stacks import toml
from fixtures.stacks.artifacts import installed
from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component
from pipeline.config import PipelineConfig
from pipeline.postgres.wal import archiving
from tests.quiet import QUIET
from tests.recovery.history import Source
from tests.reliability.rounds import Pipeline


@pytest.fixture(scope="module")
def source() -> Iterator[Source]:
    with NativeStack.launch(
        artifacts=installed(), components=[Component.POSTGRES], settings=_settings
    ) as stack:
        source = Source(stack).prepared()
        # digests do not compress: the backup has bytes to move when it is killed
        source.run(
            "create table ballast as select sha512(n::text::bytea) as a, sha512(('b' || n)::bytea)"
            " as b, sha512(('c' || n)::bytea) as c from generate_series(1, 150000) n"
        )
        yield source


@pytest.fixture
def pipeline(source: Source) -> Pipeline:
    """The command line, with the stack's configuration and its own repository."""
    return Pipeline(source, configured(source.config, source), source.config.repository.path)


def configured(config: PipelineConfig, source: Source, name: str = "pipeline.toml") -> Path:
    path = source.stack.folder / name
    toml.write(config, path, password_file=source.stack.password_file)
    return path


def _settings(config: PipelineConfig) -> Mapping[str, str]:
    return {
        **archiving.settings(config),
        **QUIET,
        "wal_sender_timeout": "5s",
        "track_commit_timestamp": "on",
    }
