"""A verdict becomes the result of a test: for pytest, JUnit and Allure."""

from typing import Any

import allure
import pytest
from allure_commons.types import AttachmentType

from checks.check import Check, Outcome
from checks.verdicts import Verdict
from fixtures.verdict import NotVerified

RULES, PROOFS = "Backup validation", "Proof of the checks"  # epics; categories match them


class CheckFailed(AssertionError):
    """A check found a problem, or a proof does not hold. Allure: failed."""


def settle(verdict: Verdict, check: Check[Any], item: pytest.Item) -> None:
    """Record the verdict with the test, and raise unless it is PASS."""
    verdict.attach_to(item)
    if item.config.getoption("allure_report_dir", None):
        _tell_allure(verdict, check)
    if verdict.outcome is Outcome.FAIL:
        raise CheckFailed(verdict.message)
    if verdict.outcome is not Outcome.PASS:
        raise NotVerified(verdict.message)


def _tell_allure(verdict: Verdict, check: Check[Any]) -> None:
    proof = verdict.fault is not None
    title = (
        f"{check.id} detects: {(verdict.fault or '').replace('_', ' ')}" if proof else check.title
    )
    allure.dynamic.title(title)
    allure.dynamic.epic(PROOFS if proof else RULES)
    allure.dynamic.feature(check.component)
    allure.dynamic.story(check.id)
    allure.dynamic.severity(check.severity)
    allure.dynamic.label("layer", "proof" if proof else "check")
    told = [check.title, *verdict.told, f"Examined: {verdict.examined}"]
    if proof:
        told += [f"Damage: {verdict.damage}"]
        told += [f"Also seen by: {', '.join(verdict.also_seen_by) or 'no other check'}"]
    told += [f"Next: {verdict.advice}"]
    allure.dynamic.description("\n\n".join(told))
    allure.attach("\n".join(told), "What was found", AttachmentType.TEXT)
