"""The terminal: the whole block as a person sees it, pinned in a file."""

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from fixtures.incident import Mark, Moment
from fixtures.reporting.terminal import PhaseLines, print_report
from tests.reporting import sample

GOLDEN = Path(__file__).parent / "golden"
FOLDER = Path("reports/drills/pitr/20261123T213930Z")


def printed(case: str, *, terminal: bool | None = None) -> str:
    out = io.StringIO()
    console = Console(file=out, width=100, highlight=False, force_terminal=terminal)
    print_report(getattr(sample, case)(), FOLDER, console)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


@pytest.mark.parametrize("case", ["recovered", "lost_data", "target_missed", "not_verified"])
def test_block_reads_as_pinned(case: str) -> None:
    """To accept a new wording, write the new text into the file and read it as a diff."""
    assert printed(case) == (GOLDEN / f"{case}.txt").read_text(encoding="utf8")


def test_colour_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    red = "\x1b[1;31mLOST DATA\x1b[0m"
    assert red in printed("lost_data", terminal=True)
    assert "\x1b" not in printed("lost_data")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;31m" not in printed("lost_data", terminal=True)


def test_phase_lines_tell_what_ended_and_how_long_it_took() -> None:
    lines = PhaseLines()
    told = [
        lines.line(Moment(mark, 50 + at, datetime.now(UTC), plus_minus, "seen"))
        for mark, at, plus_minus in [
            (Mark.FAULT, 0.0, 0.02),
            (Mark.DECIDED, 2.0, 0.0),
            (Mark.HARM, 0.3, 0.05),
            (Mark.FENCED, 4.5, 0.05),
        ]
    ]
    assert told == [
        "  +0.00 s  t0   fault       ±0.02             seen",
        "  +2.00 s  t3   decide      2.00 s            seen",
        "  +0.30 s  t1   manifest    in parallel ±0.05 seen",
        "  +4.50 s  t4   stop        2.50 s ±0.05      seen",
    ]
