"""Reading the WAL up to a position: what lies behind it is no damage, what lies before it is."""

from pathlib import Path

import pytest

from pipeline.config import PipelineConfig
from pipeline.postgres.history.waldump import ReadableEnd, readable_end
from pipeline.postgres.wal.lsn import LONG_PAGE_HEADER, PAGE_SIZE, Lsn, segment_start
from tests.recovery.history import History, flipped, segment_at


def read_to(history: History, repository: Path, end: Lsn) -> ReadableEnd:
    start = Lsn.parse(history.source.backups["first"].manifest.facts["start_lsn"])
    return readable_end(repository, history.source.tools, timeline=1, start=start, end=end)


def after_switch(history: History) -> Lsn:
    """Start of the segment that the commit behind a switch opened."""
    return segment_start(history.source.commits["straddled"].after)


@pytest.mark.parametrize("into", [8, LONG_PAGE_HEADER, LONG_PAGE_HEADER + 8, 56, 88, 96])
def test_an_end_inside_a_page_is_no_damage(history: History, into: int) -> None:
    """pg_waldump reads nothing behind the end, and judges a header that was cut there."""
    switched, record = after_switch(history), history.source.commits["straddled"].after
    found = read_to(history, history.repository, Lsn(switched + into))
    assert (found.complete, found.reason) == (True, f"read up to {Lsn(switched + into)}")
    assert found.lsn == (record if record <= switched + into else switched)


@pytest.mark.parametrize("into", [88, 96, PAGE_SIZE])
def test_damage_before_an_end_inside_a_page_is_still_damage(
    history: History, archive: PipelineConfig, into: int
) -> None:
    switched = after_switch(history)
    damaged = segment_at(archive.repository.path, switched)
    flipped(damaged, LONG_PAGE_HEADER + 30)
    found = read_to(history, archive.repository.path, Lsn(switched + into))
    assert not found.complete
    assert f"the WAL is damaged in {damaged.name}" in found.reason
    assert found.lsn == switched
