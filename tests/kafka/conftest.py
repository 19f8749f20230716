"""A broker alone: what these tests need, and what starts in seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.stacks import training
from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component, Stack
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from tests.kafka.replayed import Site


@pytest.fixture(scope="package")
def broker() -> Iterator[Stack]:
    with NativeStack.launch(
        artifacts=training.prepared(), components=(Component.KAFKA,)
    ) as started:
        yield started


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(FolderStore(tmp_path))


@pytest.fixture
def here(broker: Stack, tmp_path: Path) -> Site:
    return Site(broker, tmp_path)
