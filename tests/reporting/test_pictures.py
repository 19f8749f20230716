"""The pictures: the same bytes for the same report, and no class left out."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from fixtures.reporting import plots
from fixtures.reporting.model import DrillReport
from tests.reporting import sample

PICTURES = [plots.phases, plots.writes, plots.rate_and_lag]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("draw", PICTURES)
def test_same_bytes_in_another_process(draw: Callable[[DrillReport], bytes]) -> None:
    code = (
        "import sys; from fixtures.reporting import plots; from tests.reporting import sample; "
        f"sys.stdout.buffer.write(plots.{draw.__name__}(sample.lost_data()))"
    )
    other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert draw(sample.lost_data()) == other.stdout


@pytest.mark.parametrize("draw", PICTURES)
@pytest.mark.parametrize("case", ["recovered", "target_missed", "not_verified"])
def test_drawn_for_every_verdict(case: str, draw: Callable[[DrillReport], bytes]) -> None:
    report = getattr(sample, case)()
    assert ET.fromstring(draw(report)).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - ours


@pytest.mark.parametrize("draw", PICTURES)
def test_control_drill_without_fault_is_drawn(draw: Callable[[DrillReport], bytes]) -> None:
    control = replace(sample.recovered(), marks=[], phases=[], rta_seconds=None)
    assert draw(control)


def test_unknown_class_has_a_lane_of_its_own() -> None:
    report = replace(sample.recovered(), writes=[(0.0, "survived")])
    odd = replace(report, writes=[(0.0, "survived"), (1.0, "unheard-of")])
    assert b"unheard-of" in plots.writes(odd)
    assert b"unheard-of" not in plots.writes(report)
