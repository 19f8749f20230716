"""What is generated from the catalogue is what is committed."""

import subprocess
import sys
from pathlib import Path

import pytest

from checks import rules
from checks.documentation import catalogue, generated, injections
from checks.losses import LOSSES
from checks.procedures import WRITTEN

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("path", sorted(generated()))
def test_generated_files_are_up_to_date(path: str) -> None:
    assert (ROOT / path).read_text() == generated()[path], "run: python -m checks"


def test_a_vanished_check_is_a_diff() -> None:
    """The committed ids are those that pytest collects."""
    command = [sys.executable, "-m", "pytest", "checks/", "--collect-only", "-q"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line for line in listed.splitlines() if "::" in line] == list(catalogue())


def test_the_twenty_written_tests_point_to_checks_or_say_why_not() -> None:
    known = {check.id for check in rules.CATALOGUE}
    assert len(WRITTEN) == 20
    for written in WRITTEN:
        assert set(written.checks) <= known
        assert bool(written.checks) != bool(written.why)


def test_every_class_of_loss_is_injected_or_says_why_not() -> None:
    known = {injection.id for injection in injections()}
    numbers = [loss.number for loss in LOSSES]
    assert numbers == sorted(set(numbers))
    for loss in LOSSES:
        assert set(loss.faults) <= known, loss.number
        assert loss.faults or loss.why, loss.number
