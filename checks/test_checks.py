"""Every check holds on sound data, and detects every fault that it names."""

from typing import Any

import pytest

from checks import rules
from checks.bench import Bench
from checks.check import Check
from checks.proof import Injection
from checks.settle import settle
from checks.verdicts import Verdict

CATALOGUE = rules.CATALOGUE.proven()


def test_holds(check: Check[Any], bench: Bench, request: pytest.FixtureRequest) -> None:
    """On the pipeline that --config names, else on generated material."""
    seen = bench.examine(check)
    settle(Verdict.of_check(check, seen), check, request.node)


def test_detects(injection: Injection[Any], bench: Bench, request: pytest.FixtureRequest) -> None:
    """A copy of generated material: sound, then damaged, then red and the damaged thing named."""
    proof = bench.prove(injection, CATALOGUE)
    settle(Verdict.of_proof(proof), injection.check, request.node)
