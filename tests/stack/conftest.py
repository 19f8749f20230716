"""The stacks that the conformance suite runs on: another kind joins by one more factory."""

from collections.abc import Callable, Iterator

import pytest

from fixtures.stacks import training
from fixtures.stacks.artifacts import Artifacts
from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Stack


def native(artifacts: Artifacts) -> Stack:
    return NativeStack.launch(artifacts=artifacts)


@pytest.fixture(scope="session")
def artifacts() -> Artifacts:
    return training.prepared()


@pytest.fixture(scope="package", params=[native], ids=["native"])
def stack(request: pytest.FixtureRequest, artifacts: Artifacts) -> Iterator[Stack]:
    """Shadow the drills' fixture: the same stack, started by each factory in turn."""
    factory: Callable[[Artifacts], Stack] = request.param
    with factory(artifacts) as started:
        yield started
