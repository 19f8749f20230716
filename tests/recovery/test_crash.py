"""What a killed server leaves: no acknowledged commit is missing, and no loss is invented."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from fixtures.stacks.protocol import Component
from pipeline.errors import BackupError, LossNotAccepted, RecoveryRefused
from pipeline.postgres.replay.targets import Target
from pipeline.postgres.wal.lsn import Lsn, segment_name
from pipeline.postgres.wal.receiver import ExpectedEnd, receive
from pipeline.postgres.wal.segments import reading_view
from pipeline.repository.journal import Journal
from pipeline.repository.store import FolderStore
from pipeline.runbooks import point_in_time
from pipeline.runbooks.plan import Plan, make
from pipeline.runbooks.point_in_time import PointInTimeRecovery, new_recovery
from pipeline.runbooks.salvage import salvage
from pipeline.wait import wait_until
from tests.recovery.history import SOON, Source

LATEST = Target.parse("latest")


class Load:
    """One client that commits many rows at a time, and knows what was acknowledged."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.acknowledged = [Lsn(0)]

    def run(self) -> None:
        try:
            with self._source.connect() as connection:
                while True:
                    connection.execute(
                        "insert into notes (note) select repeat('x', 500)"
                        " from generate_series(1, 500)"
                    )
                    # up to here was flushed before the answer came: nothing else writes
                    row = connection.execute("select pg_current_wal_flush_lsn()::text").fetchone()
                    assert row is not None
                    self.acknowledged.append(Lsn.parse(row[0]))
        except psycopg.OperationalError:
            return


@contextmanager
def bulk_load(source: Source) -> Iterator[Load]:
    load = Load(source)
    thread = threading.Thread(target=load.run)
    thread.start()
    yield load
    thread.join()


def planned(source: Source) -> Plan:
    return make(source.config, LATEST)


def recovery(source: Source, journal: Journal, identity: str = "") -> PointInTimeRecovery:
    typed = identity or source.backups["one"].manifest.facts["system_identifier"]
    return PointInTimeRecovery(source.config, LATEST, journal, typed)


def test_the_expected_end_follows_the_server_and_never_goes_back(source: Source) -> None:
    source.back_up("one")
    seen: list[ExpectedEnd] = []
    with source.receiver():
        for note in ("a", "b"):
            after = source.write(note).after
            source.wait_expected(after)
            seen.append(ExpectedEnd.read(source.config.repository.path))
    flushed = Lsn.parse(source.run("select pg_current_wal_flush_lsn()::text"))
    assert [end.lsn for end in seen] == sorted(end.lsn for end in seen)
    assert seen[-1].lsn <= flushed
    assert {end.timeline for end in seen} == {1}
    assert seen[0].time < seen[-1].time


def test_no_expected_end_lies_within_a_record(source: Source) -> None:
    """The WAL writer flushes full pages first, what follows on the last one a moment later."""
    before = source.flushed()
    source.run("select pg_logical_emit_message(false, 'pipeline', repeat('x', 20000))")
    end = source.position()

    def moved() -> str | None:
        flushed = Lsn.parse(source.run("select pg_current_wal_flush_lsn()::text"))
        return None if flushed > before else f"it is at {flushed}"

    wait_until("WAL writer", moved, within=SOON)
    assert source.flushed() == end


@pytest.mark.parametrize("other", ["server", "older copy"])
def test_a_server_that_would_falsify_the_expected_end_is_refused(
    source: Source, other: str
) -> None:
    source.back_up("one")
    known = source.expect(Lsn(source.position() + (1 << 30)))
    told = "it lost WAL, or it is an old copy"
    if other == "server":
        replace(known, system_identifier="4711", lsn=Lsn(8)).write(source.config.repository.path)
        told = "belongs to the server with system identifier 4711"
    with pytest.raises(BackupError, match=told):
        receive(source.config, threading.Event())
    assert not (source.config.repository.path / "stream").exists()


def test_the_receiver_outlives_a_restart_of_its_server(source: Source) -> None:
    source.back_up("one")
    with source.receiver() as told:
        source.wait_expected(source.write("before").after)
        source.stack.stop(Component.POSTGRES)
        wait_until(
            "notice",
            lambda: None if "waiting for the server" in " ".join(told) else "",
            within=SOON,
        )
        source.stack.start(Component.POSTGRES)
        after = source.write("after").after
        source.wait_expected(after)
    assert Lsn.parse(planned(source).stop) >= after


def test_what_was_streamed_reaches_the_last_commit_without_the_server_and_its_wal(
    source: Source,
) -> None:
    source.back_up("one")
    with source.receiver():
        last = source.write("acknowledged")
        source.wait_expected(last.after)
        source.stack.kill(Component.POSTGRES)
        source.stack.wipe(Component.POSTGRES)
    found = planned(source)
    assert found.shortfall == ""
    assert Lsn.parse(found.stop) >= last.after
    assert list((source.config.repository.path / "stream").rglob("*.partial"))


def test_killed_in_a_bulk_load_no_loss_is_reported_before_nor_after_the_salvage(
    source: Source,
) -> None:
    """The kill falls into a record that is half written; the expected end must not lie in it."""
    source.back_up("one")
    with source.receiver(), bulk_load(source) as load:
        wait_until("load", lambda: None if len(load.acknowledged) > 30 else "few", within=SOON)
        source.wait_expected(load.acknowledged[-1])
        source.stack.kill(Component.POSTGRES)
    before = planned(source)
    salvage(source.data, FolderStore(source.config.repository.path), "one")
    shutil.rmtree(source.data)
    after = planned(source)
    for found in (before, after):
        assert found.shortfall == ""
        assert Lsn.parse(found.stop) >= load.acknowledged[-1]
    assert before.stop == after.stop


def test_without_a_stream_the_damaged_folder_alone_holds_the_last_commits(source: Source) -> None:
    """The recovery must not ask for the acceptance of a loss that its next step would heal."""
    source.back_up("one")
    last = source.write("only in pg_wal")
    source.expect(last.after)
    source.stack.kill(Component.POSTGRES)
    running = recovery(source, new_recovery(source.config))
    assert running.check_identity()["target"] == "latest"
    saved = running.salvage()
    assert saved["files"] >= 2
    assert Path(saved["set_aside"]).name.endswith(running.journal.recovery)
    assert not source.data.exists()
    assert Lsn.parse(running.make_plan()["stop"]) >= last.after


def test_an_earlier_salvage_does_not_hide_what_was_streamed_since(source: Source) -> None:
    """A recovery was begun and given up; the server wrote on, in the segment that was saved."""
    source.back_up("one")
    store = FolderStore(source.config.repository.path)
    source.write("before")
    salvage(source.data, store, "given-up")
    with source.receiver():
        last = source.write("since")
        source.wait_expected(last.after)
        source.stack.kill(Component.POSTGRES)
        source.stack.wipe(Component.POSTGRES)
    found = planned(source)
    assert found.shortfall == ""
    assert Lsn.parse(found.stop) >= last.after


def test_a_lost_tail_is_a_loss_and_its_acceptance_must_name_the_very_end(source: Source) -> None:
    source.back_up("one")
    source.archive()
    source.expect(source.write("lost").after)
    source.stack.kill(Component.POSTGRES)
    source.stack.wipe(Component.POSTGRES)
    with pytest.raises(LossNotAccepted, match="bytes of WAL are missing") as refused:
        planned(source)
    end = Lsn.parse(str(refused.value).rpartition("--accept-end ")[2])
    assert make(source.config, LATEST, accept_end=end).stop == str(end)


def test_salvage_takes_what_the_repository_has_not_and_the_evidence(source: Source) -> None:
    archived = source.archive()
    source.write("not archived")
    source.run("select pg_create_logical_replication_slot('kept', 'pgoutput')")
    source.stack.kill(Component.POSTGRES)
    store = FolderStore(source.config.repository.path)
    saved = salvage(source.data, store, "one")
    keys = list(store.list("salvage/one/"))
    assert saved["files"] == len(keys)
    assert saved["bytes"] == sum((store.root / key).stat().st_size for key in keys)
    names = {key.removeprefix("salvage/one/") for key in keys}
    assert {"global/pg_control", "pg_replslot/kept/state"} <= names
    assert f"pg_wal/{archived}" not in names
    assert any(name.startswith("pg_wal/") for name in names)
    assert salvage(source.data, store, "one") == saved  # repeated after an interruption
    assert salvage(source.data.with_name("gone"), store, "two") == {"files": 0, "bytes": 0}


def test_a_recycled_segment_is_not_taken_for_the_one_it_is_named_after(source: Source) -> None:
    """A server keeps old files under names to come; salvaged, they must not end the WAL early."""
    source.back_up("one")
    first = source.archive()
    last = source.write("behind")
    name = segment_name(1, last.after)
    stale = source.config.repository.path / "salvage/old/pg_wal" / name
    stale.parent.mkdir(parents=True)
    shutil.copy(source.config.repository.path / "wal" / first, stale)
    stream = source.config.repository.path / "stream/00000001" / f"{name}.partial"
    stream.parent.mkdir(parents=True)
    shutil.copy(source.data / "pg_wal" / name, stream)
    os.utime(stream, (0, 0))  # however old it looks
    source.tools.own(source.config.repository.path)
    with reading_view(source.config.repository.path, 1, source.tools) as wal:
        assert (wal.folder / name).resolve() == stream.resolve()


def test_the_plan_that_was_shown_is_compared_and_not_made_again(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each plan reads all WAL since the backup; only the salvage can change what it says."""
    source.back_up("one")
    source.expect(source.write("x").after)
    running = recovery(source, new_recovery(source.config), "4711")
    running.shown = planned(source)
    with monkeypatch.context() as patched:
        patched.setattr(point_in_time, "make", None)
        with pytest.raises(RecoveryRefused, match="typed '4711'"):
            running.identify()
    assert running.make_plan()["stop"] >= running.shown.stop
