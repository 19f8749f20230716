"""A whole recovery, interrupted after every step and resumed."""

import pytest

from fixtures.stacks.protocol import Component
from pipeline.errors import ConfigError, PipelineError, RestoreError
from pipeline.postgres import clients
from pipeline.postgres.lsn import Lsn
from pipeline.postgres.targets import Target
from pipeline.recovery.journal import Journal
from pipeline.recovery.point_in_time import PointInTimeRecovery, new_recovery
from tests.recovery.history import Source
from tests.recovery.interrupted import Power
from tests.recovery.without_connect import recovery

STEPS = [
    *("check_identity", "fence", "salvage", "plan", "restore"),
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
    recovery(source, journal, target).run()
    started = [line["step"] for line in journal.lines() if line["result"] == "started"]
    assert started == STEPS
    assert source.run("select string_agg(note, ',') from notes") == "kept"
    done = journal.done()
    assert Lsn.parse(done["replay"]["lsn"]) >= kept.after
    assert done["open"]["archive_mode"] == "on"
    assert not (source.data / clients.KEPT).exists()
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
    assert (source.data / clients.KEPT).exists()
    assert "verify" not in journal.done()
    recovery(source, journal, "latest").run()
    assert not (source.data / clients.KEPT).exists()
    assert source.run("select string_agg(note, ',') from notes") == "kept"


def test_a_damaged_index_keeps_clients_out(source: Source) -> None:
    """PostgreSQL opens such a server without a word, and reads the index when it is used."""
    source.run("alter table notes add primary key (id)")
    source.write("kept")
    source.back_up("one")
    source.expect(Lsn.parse(source.run("select pg_current_wal_flush_lsn()::text")))
    running = recovery(source, new_recovery(source.config), "latest")
    running.cut_after = "open"
    with pytest.raises(Power):
        running.run()
    index = source.data / source.run("select pg_relation_filepath('notes_pkey')")
    running.server.stop()
    content = bytearray(index.read_bytes())
    content[-100] ^= 1
    index.write_bytes(content)
    with pytest.raises(RestoreError, match=r"damaged: index public\.notes_pkey"):
        recovery(source, running.journal, "latest").run()
    assert (source.data / clients.KEPT).exists()


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


def test_a_new_server_beside_the_damaged_folder_is_not_overwritten(source: Source) -> None:
    source.back_up("one")
    source.expect(source.write("kept").after)
    running = recovery(source, new_recovery(source.config), "latest")
    running.cut_after = "salvage"
    with pytest.raises(Power):
        running.run()
    aside = running.journal.done()["salvage"]["set_aside"]
    recovery(source, running.journal, "latest").run()
    assert source.run("select note from notes") == "kept"
    assert [path.name for path in source.data.parent.iterdir() if str(path) == aside]


def test_a_recovery_needs_the_machine_that_holds_the_data(source: Source) -> None:
    nowhere = source.config.postgres.model_copy(update={"data": None})
    config = source.config.model_copy(update={"postgres": nowhere})
    with pytest.raises(ConfigError, match=r"postgres\.data is not set"):
        PointInTimeRecovery(config, Target.parse("latest"), new_recovery(config), "1")


def test_a_step_without_its_plan_is_an_error_of_ours(source: Source) -> None:
    source.back_up("one")
    with pytest.raises(PipelineError, match="before the plan was made"):
        recovery(source, new_recovery(source.config), "latest").restore()
