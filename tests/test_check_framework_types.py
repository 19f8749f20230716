"""The type checker refuses a fault aimed at anything but a scratch copy."""

from pathlib import Path

import pytest
from mypy import api

SNIPPET = """
from random import Random
from checks.rules.wal import middle_segment_missing
from checks.subjects import SourceServer, WalArchive
from fixtures.faults.files import flip_bit
from fixtures.faults.server import stop
from fixtures.scratch import Scratch
from fixtures.stacks.protocol import Endpoints
from pipeline.config import PipelineConfig

def aim(copy: Scratch[WalArchive], config: PipelineConfig, external: Endpoints, rng: Random):
    middle_segment_missing(copy, rng)
    middle_segment_missing({target}, rng)
    flip_bit({target}, "wal/000000010000000000000001", rng)
    stop({target})
"""


@pytest.mark.parametrize(
    "target", ["external", "config", "SourceServer.of(config)", "WalArchive.of(config)"]
)
def test_a_fault_accepts_nothing_but_a_scratch(target: str, tmp_path: Path) -> None:
    path = tmp_path / "aimed.py"
    path.write_text(SNIPPET.replace("{target}", target))
    told, _, code = api.run([str(path), "--no-error-summary", "--hide-error-context"])
    refused = [line for line in told.splitlines() if "[arg-type]" in line]
    assert code == 1
    assert [int(line.split(":")[1]) for line in refused] == [13, 14, 15], told
