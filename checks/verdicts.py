"""What a test of this suite found, as plain values that travel between workers and reports."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import pytest

from checks.check import Check, Examination, Outcome
from checks.proof import Proof

PROPERTY = "verdict"  # of a test's report, and of its case in JUnit
SHOWN = 20  # problems in a message; all of them are counted


@dataclass(frozen=True)
class Verdict:
    """One check or one proof; `fault` and what follows are a proof's."""

    check: str
    outcome: Outcome
    told: list[str]
    examined: int
    advice: str
    fault: str | None = None
    damage: str | None = None
    says: str = ""
    also_seen_by: list[str] = field(default_factory=list)

    @classmethod
    def of_check(cls, check: Check[Any], seen: Examination) -> Self:
        """Judge what a check saw."""
        lines = [f"{problem.subject}: {problem.problem}" for problem in seen.problems]
        lines = lines[:SHOWN] + ([f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])
        if seen.trouble:
            lines.append(seen.trouble)
        advice = seen.advice or check.advice
        return cls(check.id, seen.outcome, lines, len(seen.observations), advice)

    @classmethod
    def of_proof(cls, proof: Proof) -> Self:
        """Judge a proof; one whose control could not be verified proves nothing."""
        check = proof.injection.check
        outcome = Outcome.PASS if proof.problem is None else Outcome.FAIL
        if proof.damage is None:
            outcome = proof.control.outcome
        return cls(
            check.id,
            outcome,
            [proof.problem] if proof.problem else [],
            sum(len(seen.observations) for seen in proof.seen.values()),
            f"This check cannot be trusted until it detects {proof.injection.name!r}.",
            fault=proof.injection.name,
            damage=f"{proof.damage.subject}: {proof.damage.what}" if proof.damage else None,
            says=proof.damage.says if proof.damage else "",
            also_seen_by=proof.also_seen_by,
        )

    @property
    def id(self) -> str:
        return self.check if self.fault is None else f"{self.check}-{self.fault}"

    @property
    def message(self) -> str:
        """What a person reads: the outcome, every problem, what to do next."""
        return "\n".join([f"{self.outcome} {self.id}", *self.told, f"Next: {self.advice}"])

    def attach_to(self, item: pytest.Item) -> None:
        """Put it where the reports of every kind find it."""
        item.user_properties.append((PROPERTY, json.dumps(asdict(self))))


def verdict_of(report: pytest.TestReport) -> Verdict | None:
    """Find what `attach_to` put there; None for tests of another kind."""
    told = dict(report.user_properties).get(PROPERTY)
    if not isinstance(told, str):
        return None
    values = json.loads(told)
    return Verdict(**values | {"outcome": Outcome(values["outcome"])})


def verdicts(reports: Iterable[pytest.TestReport]) -> list[Verdict]:
    """All of a session, in the order of the reports."""
    return [found for report in reports if (found := verdict_of(report))]
