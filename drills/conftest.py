"""Every drill is judged by every live check, beside the ledger."""

from functools import partial
from pathlib import Path

import pytest

from checks.gate import live_checks
from fixtures.drill import Drill


@pytest.fixture(autouse=True)
def _judged_by_live_checks(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if "drill" not in request.fixturenames:
        return  # a rehearsal breaks nothing, and has no stack of its own to look at
    drill: Drill = request.getfixturevalue("drill")
    drill.checks = partial(live_checks, drill.service.config, tmp_path / "notes")
