"""One short history for all tests that only read it, and stacks for those that break servers."""

from collections.abc import Iterator, Mapping

import pytest

from fixtures.stacks.artifacts import Artifacts, installed
from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component
from pipeline.config import PipelineConfig
from pipeline.postgres import archiving
from tests.recovery.history import History, Source, lived


@pytest.fixture(scope="session")
def artifacts() -> Artifacts:
    return installed()


@pytest.fixture(scope="session")
def history(artifacts: Artifacts) -> Iterator[History]:
    """A server that has archived what it lived through, and runs on idle."""
    with _launched(artifacts) as stack:
        yield lived(Source(stack))


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


def _launched(artifacts: Artifacts) -> NativeStack:
    return NativeStack.launch(
        artifacts=artifacts, components=[Component.POSTGRES], settings=_settings
    )


def _settings(config: PipelineConfig) -> Mapping[str, str]:
    return {
        **archiving.settings(config),
        "archive_timeout": "0",  # a history that is told must not grow by itself
        "autovacuum": "off",
        "fsync": "off",  # servers are killed here, machines are not
        "track_commit_timestamp": "on",
    }
