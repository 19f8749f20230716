"""A broker alone: what these tests need, and what starts in seconds."""

from collections.abc import Iterator

import pytest

from fixtures.stacks import training
from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component, Stack


@pytest.fixture(scope="package")
def broker() -> Iterator[Stack]:
    with NativeStack.launch(
        artifacts=training.prepared(), components=(Component.KAFKA,)
    ) as started:
        yield started
