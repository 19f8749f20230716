"""One short history for all tests that only read it, and stacks for those that break servers."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from fixtures.stacks.artifacts import Artifacts, installed
from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component
from pipeline.config import PipelineConfig, PostgresConfig
from pipeline.postgres.wal import archiving
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from tests.quiet import QUIET
from tests.recovery.history import History, Source, copied, lived
from tests.recovery.museum import DATABASE, SCHEMA, connect, in_database
from tests.recovery.orchard import Orchard
from tests.recovery.unpacked import free_place

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def artifacts() -> Artifacts:
    return installed()


@pytest.fixture(scope="session")
def history(artifacts: Artifacts) -> Iterator[History]:
    """A server that has archived what it lived through, and runs on idle."""
    with _launched(artifacts) as stack:
        kept = "alter system set wal_keep_size = '1GB'"  # any test may ask for a checkpoint
        Source(stack).run(kept, "select pg_reload_conf()")
        yield lived(Source(stack))


@pytest.fixture
def archive(history: History, tmp_path: Path) -> PipelineConfig:
    """A copy of the repository that the test may damage."""
    folder = history.source.stack.folder / "scratch" / tmp_path.name
    return history.elsewhere(copied(history.repository, folder, history.source.tools))


@pytest.fixture
def into(history: History) -> Iterator[Path]:
    """A place for a restore that does not exist yet."""
    yield from free_place(history.source)


@pytest.fixture(scope="module")
def breakable(artifacts: Artifacts) -> Iterator[NativeStack]:
    """A server for one module, to be reset by each test that needs it new."""
    with _launched(artifacts) as stack:
        yield stack


@pytest.fixture
def source(breakable: NativeStack) -> Source:
    """A new server with an empty archive, and nothing of an earlier test."""
    breakable.make_clean()
    return Source(breakable).prepared()


@pytest.fixture(scope="module")
def museum(breakable: NativeStack) -> PipelineConfig:
    """A database with one of everything that a dump can lose."""
    with connect(breakable.config.postgres) as connection:
        connection.execute(f"create database {DATABASE}".encode())
    config = in_database(breakable.config, DATABASE)
    with connect(config.postgres) as connection:
        connection.execute(SCHEMA.encode())
    return config


@pytest.fixture(scope="module")
def orchard(breakable: NativeStack) -> Orchard:
    """A server with tables that a test may damage, each restore on top of the last."""
    return Orchard(Source(breakable))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(FolderStore(tmp_path / "repository"))


@pytest.fixture
def empty(museum: PipelineConfig) -> Iterator[PostgresConfig]:
    """A new database beside the museum."""
    name = f"restored_{next(_NUMBERS)}"
    with connect(museum.postgres) as connection:
        connection.execute(f"create database {name} template template0".encode())
        yield in_database(museum, name).postgres
        connection.execute(f"drop database {name} with (force)".encode())


def _launched(artifacts: Artifacts) -> NativeStack:
    return NativeStack.launch(
        artifacts=artifacts, components=[Component.POSTGRES], settings=_settings
    )


def _settings(config: PipelineConfig) -> Mapping[str, str]:
    return {
        **archiving.settings(config),
        **QUIET,
        "track_commit_timestamp": "on",
    }
