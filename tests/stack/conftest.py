"""The stack that the conformance suite runs on: the kind that the command line names."""

from collections.abc import Iterator

import pytest

from fixtures.stacks import training
from fixtures.stacks.artifacts import Artifacts
from fixtures.stacks.plugin import chosen
from fixtures.stacks.protocol import Stack


@pytest.fixture(scope="session")
def artifacts() -> Artifacts:
    return training.prepared()


@pytest.fixture(scope="package")
def stack(pytestconfig: pytest.Config) -> Iterator[Stack]:
    """Shadow the drills' fixture: the same stack, without an archive."""
    with chosen(pytestconfig) as (kind, held), kind.launch(artifacts=held) as started:
        yield started
