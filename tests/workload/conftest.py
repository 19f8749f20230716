"""A shop for each test: what is broken in one must not be seen in the next."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workload.shop import Shop, open_shop


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with open_shop(tmp_path / "ledger") as opened:
        yield opened
