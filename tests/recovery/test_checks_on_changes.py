"""What an increment must hold is read from the WAL: all of it, and nothing that was cut off."""

import io
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
import zstandard

from checks.changed_blocks import Blocks, Brought, Fork, brought, compare, every, forget
from checks.check import Examination, Outcome
from checks.pages import SEGMENT_BLOCKS, changed_file
from checks.rules.base_changes import increments_hold_every_change
from checks.rules.base_increments import increments_combine
from checks.subjects import BaseBackup, SourceServer, WalArchive
from fixtures.faults import backups, increments, server, sources
from fixtures.scratch import Material, Scratch
from pipeline.postgres.base import base_backup
from pipeline.postgres.history.waldump import Record
from pipeline.postgres.wal.lsn import PAGE_SIZE, Lsn, segment_name
from pipeline.repository.sets import BackupSet
from tests.recovery.growing import chain_of, increment, owned, switched


@pytest.fixture
def chained(material: Material) -> Material:
    return chain_of(material)


@pytest.fixture
def source(chained: Material) -> Iterator[Scratch[SourceServer]]:
    """A running server whose newest base backup is incremental."""
    with chained.scratch(SourceServer) as scratch:
        yield scratch


def changes(source: Scratch[SourceServer]) -> Examination:
    return increments_hold_every_change.run(lambda: WalArchive.of(source.config))


def test_increments_behind_a_damaged_header_are_not_passed_over(chained: Material) -> None:
    """A reader of tar takes it for the end of the archive."""
    with chained.scratch(WalArchive) as scratch:
        newest = backups.latest_base(scratch)
        behind_damaged_header(scratch, newest)
        found = increments_hold_every_change.run(lambda: scratch.copy)
        base = BaseBackup.of(scratch.config)
        combined = increments_combine.run(lambda: base)
    assert base.contents.trouble == {}
    assert len(base.contents.increments) > 0
    for one in (found, combined):
        assert one.outcome is Outcome.UNKNOWN
        assert f"{newest.label}: backup_manifest lists" in (one.trouble or "")


def behind_damaged_header(scratch: Scratch[Any], backup: BackupSet) -> None:
    """Damage the header of an increment in the middle of an archive, with digests that agree."""
    entry, *_ = base_backup.archives(backup)
    plain = zstandard.ZstdDecompressor().stream_reader(scratch.path(entry.key).read_bytes()).read()
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        members = [one for one in archive if changed_file(one.name.removeprefix("./"))]
    changed = bytearray(plain)
    changed[members[len(members) // 2].offset + 150] ^= 1  # in the sum over its own header
    packed = zstandard.ZstdCompressor(level=1).compress(bytes(changed))
    backups.replace_object(scratch, backup, base_backup.OBJECT, packed)


def test_changes_are_judged_before_the_segment_of_the_backup_is_archived(chained: Material) -> None:
    with chained.scratch(WalArchive) as scratch:
        facts = backups.latest_base(scratch).manifest.facts
        start = Lsn.parse(facts["start_lsn"])
        name = segment_name(facts["timeline"], start, facts["wal_segment_size"])
        scratch.path(f"wal/{name}").unlink()
        found = increments_hold_every_change.run(lambda: scratch.copy)
    assert (found.outcome, found.trouble) == (Outcome.PASS, None)


def test_what_was_cut_off_a_table_is_not_missed(source: Scratch[SourceServer]) -> None:
    """COPY adds pages ahead of need, where deleted rows lay: no record mentions them again."""
    place = owned(source, "rows")
    server.execute(
        source,
        "create table shop.long as select n as id, repeat('x', 900) as note"
        " from generate_series(1, 4000) n",
        "vacuum shop.long",
        f"copy (select * from shop.long limit 200) to '{place}/few'".encode(),
    )
    increment(source)
    server.execute(
        source,
        "delete from shop.long where id > 1000",
        "vacuum shop.long",
        f"copy shop.long from '{place}/few'".encode(),
    )
    newest = increment(source)
    file = sources.file_of(source, "shop.long").name
    (cut,) = [one for one in every(brought(newest)) if one.name.endswith(f".{file}")]
    assert all(cut.lacks(block) for block in range(cut.length - 3, cut.length))
    found = changes(source)
    assert (found.outcome, found.problems) == (Outcome.PASS, ())


@pytest.mark.parametrize(
    ("while_it_runs", "stands"),
    [("delete from shop.long where id > 1000", 130), ("drop table shop.long", 0)],
)
def test_what_is_cut_off_while_the_backup_runs_is_not_missed(
    source: Scratch[SourceServer], while_it_runs: str, stands: int
) -> None:
    """Blocks that changed before it began, of a table that was shorter when it was read.

    The backup is made to end behind the cut, and to hold what it would have found then.
    """
    server.execute(
        source,
        "create table shop.long as select n as id, repeat('x', 900) as note"
        " from generate_series(1, 4000) n",
        "vacuum shop.long",
    )
    increment(source)
    server.execute(
        source,
        "delete from shop.long where id > 3000",
        "vacuum shop.long",
        "update shop.long set note = '' where id > 2900",
    )
    newest = increment(source)
    file = sources.file_of(source, "shop.long").name
    (name,) = [one.name for one in every(brought(newest)) if one.name.endswith(f".{file}")]
    server.execute(source, while_it_runs.encode(), "vacuum")
    end = switched(source)
    increments.change_increment(source, name, lambda content: read_late(content, stands))
    before = changes(source)
    assert [one.subject for one in before.problems] == [name]
    backups.change_fact(source, "end_lsn", str(end))
    found = changes(source)
    assert (found.outcome, found.problems) == (Outcome.PASS, ())


def read_late(content: bytes, stands: int) -> bytes:
    """An increment of a file that has that many blocks left when it is read."""
    for number in increments.numbers(content):
        if number >= stands:
            content = increments.without_block(content, number)
    return content if increments.numbers(content) else increments.unchanged(content)


def test_changes_are_not_judged_by_half_of_the_wal(source: Scratch[SourceServer]) -> None:
    server.execute(source, "update shop.orders set note = '' where id < 900")
    newest = increment(source)
    assert changes(source).outcome is Outcome.PASS
    facts = newest.manifest.facts
    middle = Lsn(Lsn.parse(facts["start_lsn"]) - facts["wal_segment_size"] - PAGE_SIZE)
    name = segment_name(facts["timeline"], middle, facts["wal_segment_size"])
    (source.repository / "wal" / name).unlink()
    found = changes(source)
    assert found.outcome is Outcome.UNKNOWN
    assert name in (found.trouble or "")


def record(rmgr: bytes, op: bytes, rest: str) -> Record:
    """What pg_waldump prints of one."""
    return Record(rmgr, b"64", b"700", b"0/1000028", op, rest.encode())


@pytest.mark.parametrize(
    "cut",
    [
        record(b"Storage", b"TRUNCATE", f"base/5/16384 to {SEGMENT_BLOCKS + 7} blocks flags 7"),
        record(b"Transaction", b"COMMIT", "now; rels: base/5/16383 base/5/16384; subxacts: 7"),
        record(b"Transaction", b"ABORT_PREPARED", "7: now; rels: base/5/16384"),
    ],
    ids=lambda cut: cut.op.decode(),
)
def test_a_block_is_of_one_file_and_is_forgotten_with_it(cut: Record) -> None:
    fork = Fork(b"1663", b"5", b"16384", b"main")
    files = {n: Brought(str(n), n * SEGMENT_BLOCKS, 100, Blocks()) for n in (0, 1)}
    other = {0: Brought("other", 0, 100, Blocks())}
    held = {fork: files, fork._replace(relation=b"16385"): other}
    changed = ", ".join(
        f"blkref #{n}: rel 1663/5/{relation} blk {block}"
        for n, (relation, block) in enumerate(
            [(16384, SEGMENT_BLOCKS + 7), (16384, SEGMENT_BLOCKS + 99), (16385, 7)]
        )
    )
    compare(held, [record(b"Heap", b"UPDATE", changed)])
    assert [list(one.missing) for one in every(held)] == [[], [7, 99], [7]]
    forget(held, [cut])
    assert [list(one.missing) for one in every(held)] == [[], [], [7]]
