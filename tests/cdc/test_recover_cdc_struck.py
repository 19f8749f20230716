"""Killed at any call to the outside, a recovery of CDC is resumed and comes to the right end."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.stacks.native import NativeStack
from pipeline.runbooks.cdc import Asked, new_recovery
from tests.cdc.recovering import Broken, broken
from tests.cdc.test_recover_cdc import connector_deleted, publication_dropped, slot_dropped
from tests.recovery.striking import strikes_everywhere

pytestmark = [pytest.mark.stack, pytest.mark.slow]

EVERY = {"reconnect": 12, "verify": 4}
"""Polls make most of the calls of these steps: not each of them is one of a kind."""


@pytest.fixture
def cdc(stack: NativeStack, tmp_path: Path) -> Iterator[Broken]:
    with broken(stack, tmp_path / "repository") as made:
        yield made


@pytest.mark.parametrize("fault", [slot_dropped, publication_dropped, connector_deleted])
def test_struck_at_every_call_it_goes_on(cdc: Broken, fault: Callable[[Broken], None]) -> None:
    fault(cdc)
    rows, journal = cdc.rows, new_recovery(cdc.source.config)
    asked = Asked(secrets=cdc.secrets)
    told = {
        step.name: strikes_everywhere(
            step.name,
            lambda: cdc.recovery(asked, journal).run(),
            every=EVERY.get(step.name, 1),
        )
        for step in cdc.recovery(asked, journal).steps()
    }
    assert all(told.values()), told
    assert "request" in told["connectors" if fault is connector_deleted else "fence"]
    again = cdc.recovery(asked, journal)
    again.run()
    assert set(again.done) >= set(told)
    assert cdc.rows == rows
    cdc.recovered()
