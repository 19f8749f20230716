"""What the observer says of a mark that does not come, and what it must not wait for by itself."""

import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from fixtures.debezium import debezium_config
from fixtures.incident import IncidentLog, Mark
from fixtures.observer import LAG, Observer
from fixtures.service import Service
from fixtures.sink import Lag
from pipeline.config import PipelineConfig, RepositoryConfig


@pytest.mark.parametrize(
    ("lags", "told"),
    [
        pytest.param([], r"no probe of the last \d+ s arrived", id="none"),
        pytest.param([0.2, 1.26, 3.0], "probes took 3.00, 1.26, 0.20 s, 5 in a row", id="late"),
    ],
)
def test_why_a_pipeline_has_not_caught_up(lags: list[float], told: str) -> None:
    """An operator must see whether events come late, or not at all."""
    log = IncidentLog()
    log.mark(Mark.CONNECTED, "streams")
    sent = time.monotonic()
    seen = [Lag(sent - 60, sent)] + [Lag(sent, sent + lag) for lag in lags]
    service = SimpleNamespace(sink=SimpleNamespace(lags=lambda: seen))
    observer = Observer(cast("Service", service), log)
    missing = observer.wait_for(Mark.CAUGHT_UP, 0)
    assert missing is not None
    assert re.search(told, missing)


def test_the_connector_itself_waits_for_less_than_counts_as_late(tmp_path: Path) -> None:
    """An event may wait twice for a batch to fill; by Debezium's default that alone is too late."""
    config = PipelineConfig(repository=RepositoryConfig(path=tmp_path))
    interval = float(debezium_config(config, tables=[])["poll.interval.ms"])
    assert 4 * interval < LAG * 1000
