"""A whole recovery, interrupted after every step and resumed."""

import shutil
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from fixtures.stacks.protocol import Component
from pipeline.errors import ConfigError, PipelineError, PlaceTaken, RestoreError, ServerError
from pipeline.postgres.base.restore import MARK
from pipeline.postgres.replay.targets import Target
from pipeline.postgres.server import clients
from pipeline.postgres.server.control import system_identifier
from pipeline.postgres.wal.lsn import Lsn
from pipeline.postgres.wal.timelines import lineage
from pipeline.repository.journal import Journal
from pipeline.runbooks.point_in_time import PointInTimeRecovery, new_recovery
from pipeline.runbooks.runbook import Facts
from tests.recovery.history import Source, flipped
from tests.recovery.interrupted import Power
from tests.recovery.without_connect import WithoutConnect, recovery

STEPS = [
    *("check_identity", "fence", "salvage", "plan", "restore", "compare_digests"),
    *("replay", "open", "examine", "reconnect", "verify", "let_clients_in"),
]


def test_a_recovery_that_is_cut_after_every_step_goes_on_where_it_was(source: Source) -> None:
    source.back_up("one")
    kept = source.write("kept")
    dropped = source.write("dropped")
    source.expect(dropped.after)
    target = f"before:xid:{dropped.xid}"
    journal = new_recovery(source.config)
    for step in STEPS:
        running = recovery(source, journal, target)
        running.cut_after = step
        with pytest.raises(Power):
            running.run()
        assert list(journal.done()) == STEPS[: STEPS.index(step) + 1]
    last = recovery(source, journal, target)
    last.run()
    log = Path(f"/proc/{last.server.pid()}/fd/2").readlink()  # it is written to for years
    assert log == source.data / "log" / f"{journal.recovery}.log"
    started = [line["step"] for line in journal.lines() if line["result"] == "started"]
    assert started == STEPS
    assert source.run("select string_agg(note, ',') from notes") == "kept"
    done = journal.done()
    assert Lsn.parse(done["replay"]["lsn"]) >= kept.after
    assert done["open"]["archive_mode"] == "on"
    assert not closed(source)
    archived = source.config.repository.path / "wal" / "00000002.history"
    assert archived.exists()


def test_a_closed_gate_keeps_clients_out_until_it_opens(source: Source) -> None:
    source.back_up("one")
    source.expect(source.write("kept").after)
    journal = new_recovery(source.config)
    stopped = recovery(source, journal, "latest")
    stopped.gate = lambda: ["a topic is behind"]
    with pytest.raises(RestoreError, match="a topic is behind"):
        stopped.run()
    assert closed(source)
    assert "verify" not in journal.done()
    recovery(source, journal, "latest").run()
    assert not closed(source)
    assert source.run("select string_agg(note, ',') from notes") == "kept"


def test_a_damaged_index_keeps_clients_out(source: Source) -> None:
    """PostgreSQL opens such a server without a word, and reads the index when it is used."""
    source.run("alter table notes add primary key (id)")
    source.write("kept")
    source.back_up("one")
    source.expect(source.flushed())
    running = recovery(source, new_recovery(source.config), "latest")
    running.cut_after = "open"
    with pytest.raises(Power):
        running.run()
    index = source.data / source.run("select pg_relation_filepath('notes_pkey')")
    running.server.stop()
    flipped(index, -100)
    told = r"damaged: index public\.notes_pkey: .* of database postgres"
    with pytest.raises(RestoreError, match=told):
        recovery(source, running.journal, "latest").run()
    assert closed(source)


def test_damage_in_another_database_keeps_clients_out(source: Source) -> None:
    """A server has more than one, and a base backup brings all of them."""
    source.run("create database other", "create database closed")
    other = source.config.postgres.conninfo(dbname="other")
    with psycopg.connect(**other, autocommit=True) as connection:
        connection.execute("create table rows (id int primary key)")
        connection.execute("insert into rows select generate_series(1, 100)")
        row = connection.execute("select pg_relation_filepath('rows_pkey')").fetchone()
    source.run("alter database closed allow_connections false")
    source.back_up("one")
    source.expect(source.flushed())
    running = recovery(source, new_recovery(source.config), "latest")
    running.cut_after = "open"
    with pytest.raises(Power):
        running.run()
    assert row is not None
    running.server.stop()
    flipped(source.data / row[0], -100)
    with pytest.raises(RestoreError, match=r"index public\.rows_pkey: .* of database other"):
        recovery(source, running.journal, "latest").run()
    assert closed(source)
    running.server.stop()
    flipped(source.data / row[0], -100)
    recovery(source, running.journal, "latest").run()
    examined = running.journal.done()["examine"]
    assert examined["databases"] == ["other", "postgres", "template1"]
    assert "database closed: it allows no connections" in examined["not_examined"]


def test_a_promotion_that_did_not_last_is_not_opened(source: Source) -> None:
    """The history of the new timeline is on disk, the end of recovery is not: the power went."""
    source.back_up("one")
    source.expect(source.write("kept").after)
    journal = new_recovery(source.config)
    running = recovery(source, journal, "latest")
    running.cut_after = "compare_digests"
    with pytest.raises(Power):
        running.run()
    assert running.plan is not None
    history = source.data / "pg_wal" / "00000002.history"
    history.write_text(f"1\t{running.plan.stop}\tno recovery target specified\n")
    source.tools.own(history)
    resumed = recovery(source, journal, "latest")
    with pytest.raises(RestoreError, match="is on timeline 1, expected 2"):
        resumed.run()
    assert resumed.server.pid() is None
    assert not (source.config.repository.path / "wal" / history.name).exists()


def test_a_second_recovery_follows_the_first_onto_its_timeline(source: Source) -> None:
    """What the first one abandoned is not what the second one brings back."""
    source.back_up("one")
    source.write("kept")
    dropped = source.write("dropped")
    source.expect(source.write("abandoned").after)
    recovery(source, new_recovery(source.config), f"before:xid:{dropped.xid}").run()
    last = source.write("since")
    with source.receiver():
        source.wait_expected(last.after)
        source.stack.kill(Component.POSTGRES)
        source.stack.wipe(Component.POSTGRES)
    again = recovery(source, Journal(new_recovery(source.config).folder.with_name("two")), "latest")
    again.run()
    assert source.run("select string_agg(note, ',' order by id) from notes") == "kept,since"
    assert again.journal.done()["replay"]["timeline"] == 3


def test_a_second_recovery_to_before_the_first_one_leaves_a_history_that_can_be_read(
    source: Source,
) -> None:
    """PostgreSQL would note that it left timeline 2 before that began, and nobody could read it."""
    source.back_up("one")
    kept = source.write("kept")
    dropped = source.write("dropped")
    source.expect(source.write("abandoned").after)
    recovery(source, new_recovery(source.config), f"before:xid:{dropped.xid}").run()
    with source.receiver():
        source.wait_expected(source.write("since").after)
        source.stack.kill(Component.POSTGRES)
        source.stack.wipe(Component.POSTGRES)
    journal = Journal(new_recovery(source.config).folder.with_name("two"))
    recovery(source, journal, f"before:xid:{kept.xid}").run()
    assert source.run("select count(*) from notes") == 0
    wal = [source.config.repository.path / "wal"]
    assert [span.timeline for span in lineage(3, wal)] == [1, 3]


def salvaged(source: Source) -> WithoutConnect:
    """A recovery that was cut when the damaged folder was out of the way."""
    source.back_up("one")
    source.expect(source.write("kept").after)
    running = recovery(source, new_recovery(source.config), "latest")
    running.cut_after = "salvage"
    with pytest.raises(Power):
        running.run()
    return running


def test_a_new_server_beside_the_damaged_folder_is_not_overwritten(source: Source) -> None:
    running = salvaged(source)
    aside = running.journal.done()["salvage"]["set_aside"]
    source.data.mkdir(mode=0o700)
    source.tools.own(source.data)
    source.tools.run("initdb", "--no-sync", "--auth=trust", f"--pgdata={source.data}")
    new = system_identifier(source.data, source.tools)
    running.server.start({"listen_addresses": "", "unix_socket_directories": str(source.data)})
    with pytest.raises(PlaceTaken, match=r"a server runs in .*, which this recovery did not start"):
        recovery(source, running.journal, "latest").run()
    assert running.server.pid() is not None
    running.server.stop()
    with pytest.raises(PlaceTaken, match=r"expected what point-in-.*, found what somebody else"):
        recovery(source, running.journal, "latest").run()
    assert system_identifier(source.data, source.tools) == new
    shutil.rmtree(source.data)
    recovery(source, running.journal, "latest").run()
    assert source.run("select note from notes") == "kept"
    assert [path.name for path in source.data.parent.iterdir() if str(path) == aside]


def test_the_damaged_folder_copied_back_is_not_taken_for_a_restored_one(source: Source) -> None:
    running = salvaged(source)
    shutil.copytree(running.journal.done()["salvage"]["set_aside"], source.data, symlinks=True)
    source.tools.own(source.data)
    with pytest.raises(PlaceTaken, match="found what somebody else put there"):
        recovery(source, running.journal, "latest").run()


def test_a_folder_that_it_restored_before_it_was_cut_is_its_own(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = salvaged(source)
    whole = WithoutConnect.restore

    def restore(self: WithoutConnect) -> Facts:
        whole(self)
        raise Power

    with monkeypatch.context() as cut:
        cut.setattr(WithoutConnect, "restore", restore)
        with pytest.raises(Power):
            recovery(source, running.journal, "latest").run()
    recovery(source, running.journal, "latest").run()
    assert running.journal.done()["restore"]["found"] == "restored before"
    assert not (source.data / MARK).exists()


def test_a_setting_that_was_raised_since_the_backup_does_not_end_the_replay(
    source: Source,
) -> None:
    """PostgreSQL pauses where its own are lower, and that is not the target."""
    source.back_up("one")
    source.run("alter system set max_connections = 150")
    source.run("alter system set max_locks_per_transaction = 128")
    source.stack.stop(Component.POSTGRES)
    source.stack.start(Component.POSTGRES)
    source.expect(source.write("kept").after)
    running = recovery(source, new_recovery(source.config), "latest")
    running.run()
    assert "hot standby is not possible because" in running.server.log.read_text()
    assert source.run("select note from notes") == "kept"


def test_a_recovery_needs_the_machine_that_holds_the_data(source: Source) -> None:
    nowhere = source.config.postgres.model_copy(update={"data": None})
    config = source.config.model_copy(update={"postgres": nowhere})
    with pytest.raises(ConfigError, match=r"postgres\.data is not set"):
        PointInTimeRecovery(config, Target.parse("latest"), new_recovery(config), "1")


def test_a_step_without_its_plan_is_an_error_of_ours(source: Source) -> None:
    source.back_up("one")
    with pytest.raises(PipelineError, match="before the plan was made"):
        recovery(source, new_recovery(source.config), "latest").restore()


def closed(source: Source) -> bool:
    """Whether a client is refused by the rules."""
    try:
        clients.refuse_unless_kept_out(source.config.postgres, within=timedelta(0))
    except ServerError:
        return False
    return True
