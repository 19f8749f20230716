"""What a session of checks found, in the terminal."""

from collections import Counter
from collections.abc import Sequence

import pytest

from checks.check import Outcome, worst
from checks.matrix import TITLE, matrix_lines
from checks.verdicts import Verdict

MARKUP: dict[Outcome, dict[str, bool]] = {
    Outcome.PASS: {"green": True},
    Outcome.FAIL: {"red": True, "bold": True},
    Outcome.UNKNOWN: {"yellow": True, "bold": True},
    Outcome.NOT_RUN: {"yellow": True},
}


def write_summary(
    terminal: pytest.TerminalReporter, verdicts: Sequence[Verdict], examined: str
) -> None:
    """Each check with its outcome, what to do about those that did not pass, and the counts."""
    intact = [verdict for verdict in verdicts if verdict.fault is None]
    proofs = [verdict for verdict in verdicts if verdict.fault is not None]
    terminal.section("checks", "=")
    if intact:
        terminal.line(f"examined: {examined}")
    for verdict in sorted(intact, key=lambda verdict: verdict.check):
        terminal.write(f"{verdict.outcome:8}", **MARKUP[verdict.outcome])
        terminal.line(f"{verdict.check}  ({verdict.examined} examined)")
        _write_trouble(terminal, verdict)
    _write_counts(terminal, "checks", intact)
    if proofs:
        terminal.section(f"{TITLE} (copies of generated material)", "-")
        for line in matrix_lines(proofs):
            terminal.line(line)
        for verdict in proofs:
            if verdict.outcome is not Outcome.PASS:
                terminal.write_line(f"{verdict.outcome} {verdict.id}", **MARKUP[verdict.outcome])
                _write_trouble(terminal, verdict)
        _write_counts(terminal, "proofs", proofs)


def _write_trouble(terminal: pytest.TerminalReporter, verdict: Verdict) -> None:
    if verdict.outcome is not Outcome.PASS:
        for line in verdict.told:
            terminal.line(f"          {line}")
        if verdict.outcome is not Outcome.NOT_RUN:  # what it needs is told, and nothing is wrong
            terminal.line(f"          next: {verdict.advice}")


def _write_counts(
    terminal: pytest.TerminalReporter, name: str, verdicts: Sequence[Verdict]
) -> None:
    if verdicts:
        counts = Counter(verdict.outcome for verdict in verdicts)
        told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])
        outcome = worst(counts)
        terminal.write_line(f"{name}: {told}", **MARKUP[outcome])
