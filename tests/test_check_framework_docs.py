"""What is generated from the catalogue is what is committed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from checks import rules
from checks.documentation import catalogue, generated, injections
from checks.losses import CDC_LOSSES, LOSSES, REGISTRY_LOSSES, TOPIC_LOSSES, Loss
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
    lettered = {"": LOSSES, "C": CDC_LOSSES, "T": TOPIC_LOSSES, "R": REGISTRY_LOSSES}
    for letter, losses in lettered.items():
        numbers = [int(loss.number.removeprefix(letter)) for loss in losses]
        assert numbers == sorted(set(numbers))
        for loss in losses:
            assert set(loss.faults) <= known, loss.number
            assert loss.faults or loss.why, loss.number


@pytest.mark.parametrize(
    "loss", [*LOSSES, *CDC_LOSSES, *TOPIC_LOSSES, *REGISTRY_LOSSES], ids=lambda loss: loss.number
)
def test_what_is_held_elsewhere_is_there(loss: Loss) -> None:
    """A file of tests that `why` names exists, and so does the test, where it names one."""
    for path, name in re.findall(r"((?:tests|drills)/[\w/]+\.py)(?:::(\w+))?", loss.why):
        assert f"def {name}" in (ROOT / path).read_text(), loss.why
