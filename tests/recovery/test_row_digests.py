"""A base backup's digests are those of one LSN, whatever is written meanwhile."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from random import Random

import psycopg
import pytest

from checks.page_checksums import CHECKSUM, page_checksums
from fixtures.stacks.native import NativeStack
from fixtures.stacks.protocol import Component
from pipeline.config import PipelineConfig, ScratchConfig
from pipeline.errors import BackupError, RestoreError
from pipeline.postgres.base import base_backup, row_digests
from pipeline.postgres.base.row_digests import FACT, RowDigests, digested, snapshot, take
from pipeline.postgres.wal.lsn import PAGE_SIZE
from pipeline.repository.kinds import newest
from pipeline.repository.sets import MANIFEST, BackupSet, Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks.plan import make
from pipeline.runbooks.point_in_time import new_recovery
from pipeline.runbooks.side import SideServer
from tests.recovery.history import SOON, Source
from tests.recovery.interrupted import Power
from tests.recovery.without_connect import recovery

WRITERS = 4


@contextmanager
def _written_to(source: Source, seed: int) -> Iterator[None]:
    """Clients that commit, roll back and delete, in transactions of one row and of many."""
    stop, failures = threading.Event(), list[BaseException]()

    def write(number: int) -> None:
        rng = Random(f"{seed}-{number}")
        try:
            with source.connect() as connection:
                while not stop.is_set():
                    with connection.transaction(force_rollback=rng.random() < 0.2):
                        for _ in range(rng.choice([1, 1, 30])):
                            connection.execute(
                                "insert into notes (note) values (%s)", [f"{rng.random()}"]
                            )
                        connection.execute(
                            "delete from notes where id %% 97 = %s", [rng.randrange(97)]
                        )
        except BaseException as error:  # noqa: BLE001 - raised again where it is seen
            failures.append(error)

    threads = [threading.Thread(target=write, args=[number]) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures


def _with_room(source: Source) -> PipelineConfig:
    scratch = ScratchConfig(path=source.stack.folder / "scratch")
    return source.config.model_copy(update={"scratch": scratch})


def test_replay_to_their_lsn_shows_the_very_rows(source: Source, seed: int) -> None:
    with _written_to(source, seed):
        backup = source.back_up("one", digests=True)
        taken = [RowDigests.of(backup.manifest.facts)]
        taken += [take(source.config.postgres, SOON) for _ in range(2)]
    source.archive()
    source.expect(source.position())
    assert len({one.rows for one in taken if one}) > 1, "nobody wrote between them"
    config = _with_room(source)
    for digests in taken:
        assert digests is not None
        plan, side = make(config, digests.target), SideServer.named(config, "digests")
        try:
            side.unpack(plan.backup)
            with side.at_target(plan, lambda _: None) as (_, connect), connect() as connection:
                found = dict(digests.compared(connection))
        finally:
            side.forget()
        assert found == {"public.documents": None, "public.notes": None}


def test_a_recovery_compares_them_on_its_way_and_goes_on(source: Source) -> None:
    source.run("create unlogged table passing as select 1 as n")
    source.back_up("one", digests=True)
    source.expect(source.write("after").after)
    journal, told = new_recovery(source.config), list[str]()
    cut = recovery(source, journal, "latest")
    cut.cut_after, cut.progress = "compare_digests", told.append
    with pytest.raises(Power):
        cut.run()
    recovery(source, journal, "latest").run()
    assert any("2 tables are as they were digested at" in line for line in told), told
    left_out = ["public.passing: unlogged"]
    assert any(line.endswith(f"for want of digests: {left_out[0]}") for line in told), told
    assert journal.done()["compare_digests"]["not_examined"] == left_out
    assert source.run("select string_agg(note, ',') from notes") == "after"


def test_a_recovery_along_another_branch_compares_nothing_and_goes_on(source: Source) -> None:
    """The first recovery left the branch before the digests: rows behind it say nothing of them."""
    backup = source.back_up("one", digests=True)
    dropped = source.write("dropped")
    source.expect(dropped.after)
    _state(source, backup, lsn=str(dropped.after))
    recovery(source, new_recovery(source.config), f"before:xid:{dropped.xid}").run()
    with source.receiver():
        source.wait_expected(source.write("x" * 1_000_000).after)
        source.stack.kill(Component.POSTGRES)
        source.stack.wipe(Component.POSTGRES)
    again, told = new_recovery(source.config), list[str]()
    second = recovery(source, again, "latest")
    second.progress = told.append
    second.run()
    assert any("NOT compared with digests: they are of" in line for line in told), told
    assert source.run("select count(*) from notes") == 1


def _state(source: Source, backup: BackupSet, **changes: object) -> None:
    """Have a backup say something else of its digests, with a good seal."""
    facts = backup.manifest.facts
    other = {**facts, FACT: {**facts[FACT], **changes}}
    manifest = backup.manifest.model_copy(update={"facts": other})
    path = source.config.repository.path / backup.prefix / MANIFEST
    path.write_bytes(manifest.sealed())


def test_rows_that_are_not_as_digested_end_a_recovery_before_it_opens(source: Source) -> None:
    source.write("kept")
    backup = source.back_up("one", digests=True)
    tables = backup.manifest.facts[FACT]["tables"]
    _state(
        source, backup, tables=[t | ({"rows": 7} if t["name"] == "notes" else {}) for t in tables]
    )
    source.expect(source.write("after").after)
    running = recovery(source, new_recovery(source.config), "latest")
    with pytest.raises(RestoreError, match=r"public.notes: expected 7 rows .*, found 1 with"):
        running.run()
    assert "open" not in running.journal.done()


def test_a_page_that_changed_on_disk_beneath_the_server_ends_a_recovery(source: Source) -> None:
    """Its checksum is right, so the backup takes it; the server's memory has the row as it was."""
    source.write("kept for good")
    path = source.data / source.run("select pg_relation_filepath('notes')")
    source.run("select note from notes", "checkpoint")  # nothing writes the page again
    page = path.read_bytes()[:PAGE_SIZE].replace(b"for good", b"for food")
    right = next(page_checksums(page, 0)).to_bytes(2, "little")
    with path.open("r+b") as stream:
        stream.write(page[: CHECKSUM.start] + right + page[CHECKSUM.stop :])
    source.back_up("one", digests=True)
    source.expect(source.flushed())
    journal = new_recovery(source.config)
    with pytest.raises(RestoreError, match=r"other rows than then: public.notes: expected 1 rows"):
        recovery(source, journal, "latest").run()
    assert "replay" not in journal.done()
    accepted = recovery(source, journal, "latest")
    accepted.digests = False
    accepted.run()
    assert journal.done()["compare_digests"]["not_examined"] == ["rows: not wanted"]
    assert source.run("select note from notes") == "kept for food"


def test_a_backup_without_them_is_said_not_to_be_compared(source: Source) -> None:
    source.back_up("one")
    source.expect(source.flushed())
    running, told = recovery(source, new_recovery(source.config), "immediate"), list[str]()
    running.progress, running.cut_after = told.append, "compare_digests"
    with pytest.raises(Power):
        running.run()
    assert told[-1].endswith("NOT compared with digests: it has none")


def test_a_target_before_their_lsn_is_said_not_to_be_compared(source: Source) -> None:
    source.back_up("one", digests=True)
    source.expect(source.write("after").after)
    running = recovery(source, new_recovery(source.config), "immediate")
    running.run()
    (said,) = running.journal.done()["compare_digests"]["not_examined"]
    assert "replay ends at" in said


def test_a_transaction_that_stays_open_ends_the_wait_and_costs_no_backup(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_digests, "PATIENCE", timedelta(seconds=1))
    with source.connect() as connection, connection.transaction():
        connection.execute("insert into notes (note) values ('open')")
        told = r"is whole, without digests: .*open for longer than 0:00:01: transaction of \S+ in"
        with pytest.raises(BackupError, match=told):
            source.back_up("one", digests=True)
    kept = newest(Repository(FolderStore(source.config.repository.path)), "base")
    assert RowDigests.of(kept.manifest.facts) is None
    assert source.run("select count(*) from pg_replication_slots") == 0


def test_a_prepared_transaction_is_named_at_once_and_not_waited_for_when_left_behind(
    breakable: NativeStack, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its session is gone: the slot would wait for it until somebody ends it by hand."""
    source.run("alter system set max_prepared_transactions = 4")
    breakable.stop(Component.POSTGRES)
    breakable.start(Component.POSTGRES)
    source.run("create database beside")
    with psycopg.connect(
        **source.config.postgres.conninfo(dbname="beside"), autocommit=True
    ) as connection:
        for statement in ("begin", "select pg_current_xact_id()", "prepare transaction 'order 7'"):
            connection.execute(statement.encode())
        named = r"prepared transaction 'order 7' of \S+ in database beside, open since 20"
        said: list[str] = []
        with pytest.raises(BackupError, match=rf"longer than 0:00:01: {named}"):
            take(source.config.postgres, timedelta(seconds=1), said.append)
        assert re.match(rf"digests wait for {named}", said[0])
        monkeypatch.setattr(row_digests, "LEFT_BEHIND", timedelta(0))
        with pytest.raises(BackupError, match=rf"no digests of \S+ while there is {named}"):
            take(source.config.postgres, SOON)
        connection.execute("rollback prepared 'order 7'")
        assert take(source.config.postgres, SOON).tables


def test_a_table_that_was_emptied_behind_the_snapshot_has_no_digest(source: Source) -> None:
    with snapshot(source.config.postgres, SOON) as (connection, lsn):
        source.run("truncate notes")
        with pytest.raises(BackupError, match=r"public.notes was rewritten"):
            digested(connection, lsn)


@pytest.mark.parametrize(
    "change",
    [
        "alter table notes add column later int default 7",
        "alter table notes drop column note",
    ],
)
def test_a_table_with_other_columns_than_in_the_snapshot_has_no_digest(
    source: Source, change: str
) -> None:
    """It is not rewritten for them, and rows would be read with the columns of now."""
    source.write("kept")
    with snapshot(source.config.postgres, SOON) as (connection, lsn):
        source.run(change)
        with pytest.raises(BackupError, match=r"public.notes was altered"):
            digested(connection, lsn)


def test_what_has_no_digest_is_named(source: Source, repository: Repository) -> None:
    source.run(
        "create unlogged table passing as select 1 as n",
        "create materialized view shown as select 1 as n",
        "select lo_create(0)",
        "create database beside",
    )
    said: list[str] = []
    taken = base_backup.take(source.config, repository, said.append, digests=True)
    found = RowDigests.of(taken.manifest.facts)
    assert found is not None
    assert found.left_out == (
        "database beside",
        "public.shown: a materialized view",
        "public.passing: unlogged",
    )
    assert {table["name"] for table in found.tables} == {"documents", "notes"}
    assert found.large_objects is not None
    assert (found.large_objects["count"], found.large_objects["bytes"]) == (1, 0)
    with source.connect() as connection:
        assert dict(found.compared(connection)) == dict.fromkeys(
            ("public.documents", "public.notes", "large objects")
        )
        connection.execute("select lo_put(oid, 5000, 'later') from pg_largeobject_metadata")
        (*_, (name, told)) = found.compared(connection)
    assert name == "large objects"
    assert re.match("expected 1 of 0 bytes with digest .*, found 1 of 5,005 bytes", str(told))
    assert f"{taken.label}: without digests: {', '.join(found.left_out)}" in said


def test_without_a_free_slot_the_server_says_so(breakable: NativeStack, source: Source) -> None:
    slots = int(source.run("show max_replication_slots"))
    with psycopg.connect(**breakable.config.postgres.conninfo(), autocommit=True) as connection:
        for number in range(slots):
            connection.execute(
                "select pg_create_physical_replication_slot(%s, false, true)", [f"slot{number}"]
            )
        with pytest.raises(BackupError, match=r"all replication slots are in use"):
            take(source.config.postgres, SOON)


@pytest.mark.slow
def test_values_that_are_too_long_to_be_text_are_digested(source: Source) -> None:
    source.run(
        "create table films (id int, reel bytea)",
        "insert into films select 1, convert_to(repeat('x', 600000000), 'UTF8')",
        "insert into films values (2, null)",
    )
    found = take(source.config.postgres, SOON)
    with source.connect() as connection:
        assert not [told for _, told in found.compared(connection) if told]
        connection.execute("update films set reel = '' where id = 2")
        assert [name for name, told in found.compared(connection) if told] == ["public.films"]
