"""The clock of a drill: phases and RTA from marks that come late, early, twice or never."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.incident import IncidentLog, Mark, Moment

LATER = list(Mark)[1:]
seconds = st.floats(0, 1e6, allow_nan=False)
marks = st.dictionaries(st.sampled_from(list(Mark)), seconds)


def log_of(at: dict[Mark, float]) -> IncidentLog:
    log = IncidentLog()
    for mark, moment in at.items():
        log.mark(mark, mark.code, at=moment)
    return log


def test_phases_lie_between_marks_in_the_order_of_the_design() -> None:
    log = log_of({mark: 10.0 * number for number, mark in enumerate(Mark)})
    phases = list(log.phases())
    assert [phase.name for phase in phases] == [
        *("manifest", "detect", "decide", "stop", "restore", "replay"),
        *("open", "reconnect", "catch up", "verify", "in service"),
    ]
    assert {phase.seconds for phase in phases} == {10.0}
    assert (log.rta(), log.technical_rta()) == (110.0, 80.0)
    assert log.missing() == []


@given(marks)
def test_what_the_phases_took_adds_up_to_the_outage(at: dict[Mark, float]) -> None:
    """Where marks are out of order too: no second is counted twice, none is lost."""
    log = log_of(at)
    measured = [phase.seconds for phase in log.phases() if phase.seconds is not None]
    assert all(took >= 0 for took in measured)
    if Mark.FAULT in at:
        assert sum(measured) == pytest.approx(max(at.values()) - at[Mark.FAULT], abs=1e-6) or (
            max(at.values()) == at[Mark.FAULT]
        )
    else:
        assert measured == []


@given(marks)
def test_the_rta_is_known_only_when_both_its_ends_are(at: dict[Mark, float]) -> None:
    log = log_of(at)
    for found, start in ((log.rta(), Mark.FAULT), (log.technical_rta(), Mark.DECIDED)):
        if {start, Mark.IN_SERVICE} <= at.keys():
            assert found == at[Mark.IN_SERVICE] - at[start]
        else:
            assert found is None


def test_a_mark_that_came_before_its_turn_takes_no_time_and_says_so() -> None:
    log = log_of({Mark.FAULT: 0, Mark.HARM: 5, Mark.DETECTED: 3, Mark.DECIDED: 9})
    manifest, detect, decide = list(log.phases())[:3]
    assert (manifest.seconds, detect.seconds, decide.seconds) == (5, 0, 4)
    assert "before its turn" in detect.note
    assert [moment.mark for moment in log.moments()][1] is Mark.DETECTED


def test_a_mark_that_did_not_happen_is_printed_so_and_its_time_falls_to_the_next() -> None:
    log = log_of({Mark.FAULT: 0, Mark.DETECTED: 8})
    log.skip(Mark.FENCED, "nothing to fence")
    phases = {phase.ends: phase for phase in log.phases()}
    assert (phases[Mark.HARM].seconds, phases[Mark.HARM].note) == (None, "did not happen")
    assert phases[Mark.DETECTED].seconds == 8
    assert (phases[Mark.FENCED].seconds, phases[Mark.FENCED].note) == (None, "nothing to fence")
    assert Mark.HARM in log.missing()
    assert Mark.FENCED not in log.missing()


def test_the_first_report_of_a_mark_counts_and_is_heard_once() -> None:
    heard: list[Moment] = []
    log = IncidentLog(heard.append)
    log.mark(Mark.FAULT, "table gone", at=100.0, plus_minus=0.5)
    log.mark(Mark.FAULT, "still gone", at=50.0)
    assert [(moment.evidence, moment.monotonic, moment.plus_minus) for moment in heard] == [
        ("table gone", 100.0, 0.5)
    ]
    assert log.moments() == heard


def test_a_mark_that_happened_is_not_one_that_was_skipped() -> None:
    log = log_of({Mark.FAULT: 0, Mark.HARM: 1})
    log.skip(Mark.HARM, "nobody was harmed")
    assert next(log.phases()).seconds == 1
