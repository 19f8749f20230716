"""The verdict: the first that applies, and never RECOVERED without a read-back."""

from datetime import timedelta

import pytest

from fixtures.verdict import Loss, Verdict, judge
from pipeline.config import Objective

FIVE_MINUTES = Objective(rto=timedelta(minutes=30), rpo=timedelta(minutes=5))
NOTHING_LOST = Objective(rto=timedelta(minutes=20))
OK = Loss()


@pytest.mark.parametrize(
    ("loss", "rta", "unverified", "objective", "expected"),
    [
        pytest.param(OK, 60.0, [], FIVE_MINUTES, Verdict.RECOVERED, id="nothing-lost"),
        pytest.param(OK, 1801.0, [], FIVE_MINUTES, Verdict.TARGET_MISSED, id="too-slow"),
        pytest.param(
            Loss(lost=3, seconds=2), 60.0, [], FIVE_MINUTES, Verdict.RECOVERED, id="within-rpo"
        ),
        pytest.param(
            Loss(lost=3, seconds=301), 60.0, [], FIVE_MINUTES, Verdict.LOST_DATA, id="beyond-rpo"
        ),
        pytest.param(
            Loss(stale=1, seconds=0.1), 60.0, [], NOTHING_LOST, Verdict.LOST_DATA, id="rpo-zero"
        ),
        pytest.param(Loss(phantom=1), 60.0, [], FIVE_MINUTES, Verdict.LOST_DATA, id="phantom"),
        pytest.param(
            Loss(corrupt=1), 60.0, [], FIVE_MINUTES, Verdict.LOST_DATA, id="corrupt-within-rpo"
        ),
        pytest.param(None, 60.0, [], FIVE_MINUTES, Verdict.NOT_VERIFIED, id="nothing-read-back"),
        pytest.param(OK, None, [], FIVE_MINUTES, Verdict.NOT_VERIFIED, id="never-in-service"),
        pytest.param(
            OK, 60.0, ["the sink died"], FIVE_MINUTES, Verdict.NOT_VERIFIED, id="observer-died"
        ),
        pytest.param(
            Loss(lost=9, seconds=900),
            9e9,
            ["the sink died"],
            FIVE_MINUTES,
            Verdict.NOT_VERIFIED,
            id="not-verified-comes-first",
        ),
    ],
)
def test_first_that_applies(
    loss: Loss | None,
    rta: float | None,
    unverified: list[str],
    objective: Objective,
    expected: Verdict,
) -> None:
    assert judge(unverified=unverified, loss=loss, rta=rta, objective=objective).verdict is expected


def test_loss_is_named_beside_not_verified() -> None:
    judged = judge(
        unverified=["the sink died"],
        loss=Loss(lost=9, seconds=900),
        rta=1.0,
        objective=FIVE_MINUTES,
    )
    assert any("9 acknowledged rows lost" in reason for reason in judged.reasons)
