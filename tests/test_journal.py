"""The journal of a recovery: what was done is known after a crash, and nothing else is."""

from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError, StoreError
from pipeline.repository.journal import Journal
from pipeline.runbooks import point_in_time, topic_loss


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "recoveries" / "point-in-time-1")


@pytest.mark.parametrize("scenario", [point_in_time, topic_loss])
def test_two_recoveries_in_one_second_do_not_share_a_journal(
    scenario: ModuleType, tmp_path: Path
) -> None:
    config = PipelineConfig.model_validate({"repository": {"path": tmp_path}})
    begun = {scenario.new_recovery(config).recovery for _ in range(20)}
    assert len(begun) == 20


def test_lines_are_read_back_in_order_with_their_facts(journal: Journal) -> None:
    journal.write("fence", "started")
    journal.write("fence", "done", refused="127.0.0.1:5432", at=Path("/data"))
    assert [(line["step"], line["result"]) for line in journal.lines()] == [
        ("fence", "started"),
        ("fence", "done"),
    ]
    done = journal.done()["fence"]
    assert (done["refused"], done["at"]) == ("127.0.0.1:5432", "/data")
    assert datetime.fromisoformat(done["utc"]).tzinfo == UTC


def test_only_what_was_finished_counts_as_done(journal: Journal) -> None:
    for step, result in [("fence", "done"), ("restore", "failed"), ("replay", "started")]:
        journal.write(step, result)
    assert list(journal.done()) == ["fence"]
    journal.write("restore", "done", bytes=1)
    assert list(journal.done()) == ["fence", "restore"]


def test_a_step_that_was_done_twice_is_known_by_its_last_facts(journal: Journal) -> None:
    journal.write("plan", "done", stop="0/1")
    journal.write("plan", "done", stop="0/2")
    assert journal.done()["plan"]["stop"] == "0/2"


def test_a_place_that_cannot_be_written_is_said_and_no_step_is_taken(tmp_path: Path) -> None:
    (tmp_path / "recoveries").write_text("no folder")
    taken = dict[str, Any]()
    journal = Journal.new(tmp_path, "point-in-time")
    for begin in (journal.alone(), journal.only("point-in-time")):
        with pytest.raises(StoreError, match=r"cannot write .*journal\.jsonl: "), begin:
            taken["begun"] = begin
    with pytest.raises(StoreError, match="No step is taken that is not written down"):
        journal.run("fence", lambda: taken.setdefault("fence", {}))
    assert taken == {}


def test_what_ended_a_step_is_told_also_where_it_cannot_be_written(journal: Journal) -> None:
    def full() -> dict[str, object]:
        journal.path.unlink()
        journal.path.mkdir()
        raise ConfigError("no room")

    with pytest.raises(ConfigError, match="no room"):
        journal.run("fence", full)


@given(cut=st.integers(1, 200), text=st.text())
def test_a_line_that_a_crash_cut_short_costs_only_itself(
    tmp_path_factory: pytest.TempPathFactory, cut: int, text: str
) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal"))
    journal.write("fence", "done")
    whole = journal.path.stat().st_size
    journal.write("salvage", "done", text=text)
    content = journal.path.read_bytes()
    journal.path.write_bytes(content[: max(whole, len(content) - 1 - cut)])
    journal.write("plan", "done", text=text)
    done = journal.done()
    assert list(done) == ["fence", "plan"]
    assert done["plan"]["text"] == text


def test_a_recovery_that_never_was_is_named(journal: Journal) -> None:
    with pytest.raises(ConfigError, match=r"no recovery 'point-in-time-1' in .*recoveries"):
        list(journal.lines())
