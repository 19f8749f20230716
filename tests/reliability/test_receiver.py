"""The receiver under supervision: what ends it is said, waited out, and leaves no gap."""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fixtures.stacks.protocol import Component
from pipeline.cli import app
from pipeline.errors import BackupError
from pipeline.postgres.server.session import environment
from pipeline.postgres.wal import receiver
from pipeline.postgres.wal.receiver_status import STATUS, ReceiverStatus
from pipeline.postgres.wal.stream import LOCK, PROGRAM, STREAM, orphans
from pipeline.wait import wait_until
from tests.recovery.history import SOON, Source
from tests.reliability.rounds import Pipeline

NEW = "select pg_drop_replication_slot(slot_name) from pg_replication_slots"


@pytest.fixture
def fresh(source: Source) -> Source:
    """No slot and no stream of an earlier test."""
    source.run(NEW)
    repository = source.config.repository.path
    shutil.rmtree(repository / STREAM, ignore_errors=True)
    for name in (STATUS, LOCK, receiver.EXPECTED_END):
        (repository / name).unlink(missing_ok=True)
    return source


def status(source: Source) -> ReceiverStatus:
    return ReceiverStatus.read(source.config.repository.path)


def received(source: Source) -> None:
    """Return once what is written now is on the repository's disk."""
    wanted = source.write("received").after

    def there() -> str | None:
        found = status(source)
        return None if (found.received or 0) >= wanted and not found.reason else f"{found}"

    wait_until(f"{wanted} received", there, within=SOON)


def waiting(source: Source, reason: str) -> None:
    """Return once the status names this reason."""
    wait_until(
        reason,
        lambda: None if reason in status(source).reason else f"{status(source)}",
        within=SOON,
    )


@contextmanager
def other_reader(source: Source) -> Iterator["subprocess.Popen[bytes]"]:
    """A client of somebody else's that reads our slot."""
    folder = source.stack.folder / "scratch" / "elsewhere"
    folder.mkdir(exist_ok=True)
    source.tools.own(folder)
    postgres = source.config.postgres
    words = (f"--directory={folder}", f"--slot={source.config.repository.receiver_slot}")
    address = (f"--host={postgres.host}", f"--port={postgres.port}", f"--username={postgres.user}")
    process = source.tools.popen(PROGRAM, *words, *address, env=environment(postgres), cwd=folder)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_killed_stream_is_started_again_and_leaves_no_gap(fresh: Source) -> None:
    with fresh.receiver() as told:
        received(fresh)
        (pid,) = orphans(fresh.config.repository.path / STREAM)
        os.kill(pid, signal.SIGKILL)
        waiting(fresh, "was ended by signal 9")
        received(fresh)
        assert status(fresh).restarts == 1
    assert any(f"{PROGRAM} was ended by signal 9" in line for line in told)
    assert orphans(fresh.config.repository.path / STREAM) == []


def test_a_segment_that_was_never_filled_is_begun_anew(fresh: Source) -> None:
    """Zeros come before WAL: killed among them, pg_receivewal would refuse the file for ever."""
    folder = fresh.config.repository.path / STREAM / "00000001"
    folder.mkdir(parents=True)
    name = fresh.run("select pg_walfile_name(pg_current_wal_lsn())")
    (folder / f"{name}.partial").write_bytes(bytes(4096))
    with fresh.receiver():
        received(fresh)


def test_a_restart_of_the_server_is_waited_out(fresh: Source) -> None:
    with fresh.receiver():
        received(fresh)
        fresh.stack.stop(Component.POSTGRES)
        wait_until("notice", lambda: None if status(fresh).reason else "none", within=SOON)
        fresh.stack.start(Component.POSTGRES)
        received(fresh)
    assert status(fresh).restarts >= 1


def test_pauses_grow_until_it_streams_again(fresh: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "PERIOD", 0.05)
    fresh.run("select pg_create_physical_replication_slot('pipeline_receiver', true)")
    with other_reader(fresh):
        wait_until("reader", lambda: None if fresh.run(ACTIVE) else "none", within=SOON)
        stop, told = threading.Event(), list[str]()
        thread = threading.Thread(target=receiver.receive, args=(fresh.config, stop, told.append))
        thread.start()
        # what it does not stream may be lost, and a recovery must know of it
        fresh.wait_expected(fresh.write("not streamed").after)
        wait_until("attempts", lambda: None if len(told) > 3 else f"{told}", within=SOON)
    try:
        received(fresh)
    finally:
        stop.set()
        thread.join()
    pauses = [float(line.split()[-2]) for line in told if "next try" in line]
    assert pauses[:4] == [0.05, 0.1, 0.2, 0.4]
    assert "slot 'pipeline_receiver' is in use by another client" in told[0]


ACTIVE = "select active from pg_replication_slots where slot_name = 'pipeline_receiver'"


def test_a_slot_of_another_kind_is_refused(fresh: Source) -> None:
    fresh.run("select pg_create_logical_replication_slot('pipeline_receiver', 'pgoutput')")
    with pytest.raises(BackupError, match="is logical, expected a physical one"):
        receiver.receive(fresh.config, threading.Event())
    assert "is logical" in status(fresh).reason


def test_a_slot_that_lost_wal_is_refused_because_the_stream_would_have_a_gap(
    fresh: Source,
) -> None:
    fresh.run("select pg_create_physical_replication_slot('pipeline_receiver', true)")
    fresh.run("alter system set max_slot_wal_keep_size = '1MB'", "select pg_reload_conf()")

    def lost() -> str | None:
        """The server lets go at a checkpoint, of what it had saved about the slot at the last."""
        fresh.archive()
        fresh.run("checkpoint")
        found = fresh.run("select wal_status from pg_replication_slots")
        return None if found == "lost" else found

    try:
        wait_until("loss of the slot", lost, within=SOON)
        with pytest.raises(BackupError, match="has lost WAL that was never received"):
            receiver.receive(fresh.config, threading.Event())
    finally:
        fresh.run("alter system reset max_slot_wal_keep_size", "select pg_reload_conf()")


def test_only_one_receiver_streams_into_a_repository(fresh: Source) -> None:
    with fresh.receiver():
        received(fresh)
        with pytest.raises(BackupError, match="another receiver already streams"):
            receiver.receive(fresh.config, threading.Event())
        received(fresh)


def test_the_status_says_when_nobody_speaks_any_more(pipeline: Pipeline, fresh: Source) -> None:
    arguments = ["wal", "status", "--config", str(pipeline.configuration)]
    never = CliRunner().invoke(app, arguments)
    assert never.exit_code == 1
    assert "no receiver has ever streamed into" in str(never.exception)
    with fresh.receiver():
        received(fresh)
        told = CliRunner().invoke(app, arguments)
        assert (told.exit_code, "timeline 1: received" in told.output) == (0, True)
    path = fresh.config.repository.path
    found = status(fresh)
    type(found)(**{**vars(found), "time": found.time - timedelta(minutes=1)}).write(path)
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 1
    assert f"process {found.pid} has said nothing since" in str(told.exception)


def test_a_repository_that_cannot_be_written_is_said_at_once(fresh: Source, tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    repository = fresh.config.repository.model_copy(update={"path": tmp_path})
    config = fresh.config.model_copy(update={"repository": repository})
    with pytest.raises(BackupError, match="cannot write to its repository"):
        receiver.receive(config, threading.Event())
