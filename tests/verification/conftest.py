"""A repository for each test, and chance from the run's seed."""

from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from tests.verification.kept import NOW, Kept


@pytest.fixture
def rng(seed: int) -> Random:
    return Random(seed)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    made = Kept(tmp_path / "repository")
    for hour in (1, 2):
        made.commit(NOW - timedelta(hours=hour))
    for number in range(10, 15):
        made.archive(number)
    return made
