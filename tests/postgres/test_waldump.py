"""What is read of a real server's WAL, in which order, and how far it can be read."""

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline.postgres.history.waldump import Reading, commit_order, endings, readable_end
from pipeline.postgres.wal.lsn import Lsn, segment_name
from pipeline.postgres.wal.segments import reading_view
from tests.postgres.source import Source, copy_of

TRANSACTIONS = ("Transaction",)


def test_commit_order_is_that_of_the_server(source: Source, orders: dict[str, Any]) -> None:
    written = []
    for item in range(5):
        xid = source.transaction(f"insert into orders (item) values ('{item}')")
        (after,) = source.run("select pg_current_wal_insert_lsn()::text")
        written.append((xid, Lsn.parse(after)))
    source.run("begin; insert into orders (item) values ('never'); rollback")
    source.archive_all()
    start = Lsn.parse(orders["start_lsn"])
    with reading_view(source.repository, 1, source.tools) as wal:
        reading = Reading(wal, source.tools, start=start, rmgrs=TRANSACTIONS)
        commits = list(commit_order(reading))
        aborted = [e for e in endings(Reading(wal, source.tools, start=start)) if not e.committed]
    assert [commit.xid for commit in commits] == [xid for xid, _ in written]
    for commit, (_, after) in zip(commits, written, strict=True):
        assert start < commit.lsn < commit.end_lsn <= after
    assert len(aborted) == 1
    assert reading.end.complete


def test_record_ends_are_where_the_next_record_starts(
    source: Source, orders: dict[str, Any]
) -> None:
    """The arithmetic is held against pg_waldump, over pages, segments and a switch."""
    source.run("update orders set item = repeat('long ', 300) || random()")
    source.archive_all()
    with reading_view(source.repository, 1, source.tools) as wal:
        records = list(Reading(wal, source.tools, start=Lsn.parse(orders["start_lsn"])))
    size = wal.segment_size
    assert size == 1 << 20
    assert records[-1].lsn // size > records[0].lsn // size
    for record, following in pairwise(records):
        header = {0: 40}.get(record.end(size) % size, 24 * (record.end(size) % 8192 == 0))
        assert record.end(size) + header == following.lsn


@pytest.mark.parametrize("writer", ["receiver", "salvage"])
def test_the_archive_may_end_in_an_unfinished_segment(
    source: Source, tmp_path: Path, writer: str
) -> None:
    """Read up to the last whole record, not into the segments that a server keeps for reuse."""
    start = Lsn.parse(source.run("select pg_current_wal_insert_lsn()::text")[0])
    source.run("create table archived as select n from generate_series(1, 10) n")
    source.run("checkpoint", "drop table archived")
    repository = copy_of(source, tmp_path)
    pg_wal, flushed = _standing_still(source, tmp_path / "pg_wal")
    name = segment_name(1, flushed, 1 << 20)
    if writer == "receiver":
        stream = repository / "stream" / "00000001"
        stream.mkdir(parents=True)
        pg_wal.joinpath(name).rename(stream / f"{name}.partial")
    else:
        salvaged = repository / "salvage" / "one" / "data"
        salvaged.mkdir(parents=True)
        pg_wal.rename(salvaged / "pg_wal")
    source.tools.own(repository)
    end = readable_end(repository, source.tools, timeline=1, start=start)
    assert (end.lsn, end.complete) == (flushed, True)
    assert f"the written WAL ends in {name}" in end.reason
    beyond = readable_end(repository, source.tools, timeline=1, start=start, end=flushed + 4096)
    assert not beyond.complete


def _standing_still(source: Source, into: Path) -> tuple[Path, Lsn]:
    """Copy pg_wal, and tell where it ended: the server writes a snapshot every 15 s by itself."""
    flushed = "select pg_current_wal_flush_lsn()::text"

    while True:
        (before,) = source.run(flushed)
        shutil.copytree(source.server.data / "pg_wal", into)
        if source.run(flushed) == (before,):
            return into, Lsn.parse(before)
        shutil.rmtree(into)


def test_a_damaged_record_is_reported_where_it_lies(
    source: Source, orders: dict[str, Any], tmp_path: Path
) -> None:
    start = Lsn.parse(orders["start_lsn"])
    source.run("update orders set item = 'y'")
    name = source.archive_all()
    source.run("insert into orders (item) values ('z')")
    source.archive_all()
    damaged = copy_of(source, tmp_path)
    segment = damaged / "wal" / name
    content = bytearray(segment.read_bytes())
    content[(start % len(content)) + 30_000] ^= 0xFF
    segment.write_bytes(content)
    end = readable_end(damaged, source.tools, timeline=orders["timeline"], start=start)
    assert not end.complete
    assert "damaged" in end.reason
    assert start < end.lsn <= start + 30_000
