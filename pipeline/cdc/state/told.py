"""How a classification is told: to a person, worst first, and as JSON."""

from collections.abc import Iterator
from typing import Any

from pipeline.cdc.state.classify import Classification, Finding, Verdict
from pipeline.cdc.state.states import About, Gravity


def lines(found: Classification) -> Iterator[str]:
    """One paragraph each: what state, by which values, what is at risk, what to do."""
    for verdict in found.verdicts:
        yield from _paragraph(verdict)
    for name in found.elsewhere:
        yield f"{name} reads another server, and is not judged"
    if not found.looked:
        yield (
            "UNKNOWN: no connector is this pipeline's: name it by connect.connectors, or its slot "
            "by cdc.slot"
        )


def _paragraph(verdict: Verdict) -> Iterator[str]:
    worst, *others = verdict.findings or (None,)
    kind = "" if verdict.about in {About.SERVER, About.WORKERS} else f"{verdict.about} "
    foreign = "" if verdict.own else ", not this pipeline's"
    shown = worst if worst is not None and worst.state.id == verdict.state else None
    title = f" {shown.state.title} ({shown.gravity})" if shown else ""
    yield f"{kind}{verdict.name}: {verdict.state}{title}{foreign}"
    if worst is not None:
        yield from _told(worst)
    for finding in others:
        yield f"  also: {finding.state.id} {finding.state.title}: {finding.said}"
        if finding.gravity is not Gravity.NOTE:
            yield f"    do: {finding.command}"
    for why, states in verdict.unknown.items():
        yield f"  not known: {', '.join(states)}: {why}"


def _told(finding: Finding) -> Iterator[str]:
    yield f"  {finding.said}"
    size = "" if finding.lost_bytes is None else f" ({finding.lost_bytes:,} bytes of WAL)"
    yield f"  at risk: {finding.risk}{size}"
    yield f"  do: {finding.command}"


def facts(found: Classification) -> dict[str, Any]:
    """Everything that `lines` tells, for programs."""
    return {
        "loses": found.loses,
        "unknown": found.unknown,
        "elsewhere": list(found.elsewhere),
        "verdicts": [
            {
                "about": verdict.about,
                "name": verdict.name,
                "own": verdict.own,
                "state": verdict.state,
                "findings": [_facts(one) for one in verdict.findings],
                "unknown": {why: list(states) for why, states in verdict.unknown.items()},
            }
            for verdict in found.verdicts
        ],
    }


def _facts(finding: Finding) -> dict[str, Any]:
    return {
        "state": finding.state.id,
        "title": finding.state.title,
        "gravity": finding.gravity,
        "said": finding.said,
        "risk": finding.risk,
        "bytes": finding.lost_bytes,
        "do": finding.command,
    }
