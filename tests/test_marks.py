"""A step ends with its mark, also where only the journal of a dead recovery tells of it."""

import time
from pathlib import Path

from fixtures.drill import Drill
from fixtures.incident import IncidentLog, Mark
from pipeline.repository.journal import Journal


def unobserved(log: IncidentLog) -> Drill:
    """A drill with its log alone: nothing here asks a server."""
    drill = object.__new__(Drill)
    drill.log, drill._observed, drill._meanwhile = log, set(), {}
    return drill


def test_what_a_recovery_did_before_it_died_is_marked_when_its_journal_says(
    tmp_path: Path,
) -> None:
    """A mark that is missing would leave the classifier without the moment of the fence."""
    journal, log = Journal(tmp_path / "point-in-time-1"), IncidentLog()
    before = time.monotonic()
    journal.write("fence", "done", refused="127.0.0.1:5432")
    journal.write("restore", "done", bytes=5, backup="base-1")
    after = time.monotonic()
    unobserved(log).catch_up(journal)
    fenced = log.at(Mark.FENCED)
    assert fenced is not None
    assert before - 0.01 <= fenced <= after + 0.01
    assert [one.mark for one in log.moments()] == [Mark.FENCED, Mark.RESTORED]
    assert log.moments()[0].plus_minus > 0


def test_a_step_that_was_observed_is_not_marked_again(tmp_path: Path) -> None:
    journal, log = Journal(tmp_path / "point-in-time-1"), IncidentLog()
    journal.write("restore", "done", bytes=5, backup="base-1")
    drill = unobserved(log)
    drill.observe("restore", {"bytes": 5, "backup": "base-1"})
    seen = log.at(Mark.RESTORED)
    drill.catch_up(journal)
    assert log.at(Mark.RESTORED) == seen
