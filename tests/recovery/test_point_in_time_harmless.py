"""A point-in-time recovery asks again: what was true when it was cut may be untrue by now."""

import psycopg
import pytest
from pydantic import SecretStr

from fixtures.stacks.protocol import Component
from pipeline.errors import ConfigError, RecoveryRefused, RestoreError
from pipeline.postgres.server.server import LocalServer, private_socket
from pipeline.postgres.wal import archiving
from pipeline.postgres.wal.lsn import Lsn
from pipeline.repository.journal import Journal
from pipeline.runbooks import opened
from pipeline.runbooks.point_in_time import new_recovery
from tests.recovery.history import Source
from tests.recovery.interrupted import Power
from tests.recovery.without_connect import WithoutConnect, recovery


def cut(source: Source, after: str) -> Journal:
    """A recovery to the latest moment that the plug ended behind a step."""
    source.back_up("one")
    source.expect(source.write("kept").after)
    running = recovery(source, new_recovery(source.config), "latest")
    running.cut_after = after
    with pytest.raises(Power):
        running.run()
    return running.journal


def test_a_resumed_recovery_asks_for_the_identity_again(source: Source) -> None:
    journal = cut(source, "fence")
    stranger = recovery(source, journal, "latest")
    stranger.identity = "anything"
    with pytest.raises(RecoveryRefused, match=r"typed 'anything', but point-in-time-"):
        stranger.run()
    assert source.data.exists()


def test_a_server_that_was_started_again_is_fenced_again(source: Source) -> None:
    """Its folder would be renamed beneath it, and what it acknowledged meanwhile be lost."""
    journal = cut(source, "fence")
    source.stack.start(Component.POSTGRES)
    source.write("meanwhile")
    recovery(source, journal, "latest").run()
    assert source.run("select string_agg(note, ',' order by id) from notes") == "kept,meanwhile"
    assert journal.count("fence", "done") == 2


def test_what_the_damaged_folder_took_since_it_was_saved_is_saved_too(source: Source) -> None:
    """Somebody starts the old server from the folder that was set aside, to look at it."""
    journal = cut(source, "plan")
    aside = recovery(source, journal, "latest").aside
    postgres = source.config.postgres
    where = {"port": str(postgres.port), "listen_addresses": postgres.host}
    old = LocalServer(aside, source.tools, journal.folder / "old.log")
    with private_socket(source.tools) as socket:
        old.start(where | {"unix_socket_directories": str(socket), "archive_mode": "off"})
    source.write("meanwhile")
    recovery(source, journal, "latest").run()
    assert old.pid() is None
    assert source.run("select string_agg(note, ',' order by id) from notes") == "kept,meanwhile"


def test_a_commit_that_waits_for_a_lost_standby_is_found_before_clients_are(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "COMMIT_SECONDS", 1)
    source.run("alter system set synchronous_standby_names = 'one_that_is_gone'")
    source.back_up("one")
    journal = new_recovery(source.config)
    source.expect(source.flushed())
    with pytest.raises(RestoreError, match=r"no commit returns.*'one_that_is_gone'"):
        recovery(source, journal, "latest").run()
    with psycopg.connect(**source.config.postgres.conninfo(), autocommit=True) as connection:
        connection.execute("alter system set synchronous_standby_names = ''")
        connection.execute("select pg_reload_conf()")
    recovery(source, journal, "latest").run()
    assert source.run("create table t ()", "select 1") == 1


def test_a_password_that_was_changed_since_the_target_is_said_and_given(source: Source) -> None:
    """The restored server knows the earlier one alone; the operator gives it, and goes on."""
    source.back_up("one")
    kept = source.write("kept")
    postgres, journal = source.config.postgres, new_recovery(source.config)
    before = postgres.secret()
    source.expect(kept.after)
    source.run("alter role postgres password 'another'")
    changed = {"password": SecretStr("another"), "password_file": None}
    now = source.config.model_copy(update={"postgres": postgres.model_copy(update=changed)})
    running = recovery(source, journal, f"lsn:{kept.after}")
    running.config = now
    with pytest.raises(RestoreError, match=r"as they were at the target.*--resume"):
        running.run()
    assert before is not None
    recovery(source, journal, f"lsn:{kept.after}").run()
    assert source.run("select string_agg(note, ',' order by id) from notes") == "kept"


@pytest.mark.parametrize(("decision", "rows"), [("commit", "kept,prepared"), ("rollback", "kept")])
def test_a_prepared_transaction_at_the_target_is_decided_by_the_operator(
    source: Source, decision: str, rows: str
) -> None:
    source.run("alter system set max_prepared_transactions = 2")
    source.stack.kill(Component.POSTGRES)
    source.stack.start(Component.POSTGRES)
    source.back_up("one")
    source.write("kept")
    with psycopg.connect(**source.config.postgres.conninfo()) as connection:
        connection.execute("insert into notes (note) values ('prepared')")
        connection.execute("prepare transaction 'of a coordinator'")
    source.expect(source.flushed())
    journal = new_recovery(source.config)
    with pytest.raises(RecoveryRefused, match=r"prepared: .*'of a coordinator' of postgres in "):
        recovery(source, journal, "latest").run()
    source.stack.stop(Component.POSTGRES)  # nobody tells of it beforehand
    with pytest.raises(RestoreError, match=r"'of a coordinator' of postgres in .*--prepared"):
        recovery(source, journal, "latest").run()
    again = recovery(source, journal, "latest")
    again.prepared = decision
    again.run()
    assert source.run("select string_agg(note, ',' order by id) from notes") == rows


def test_who_was_killed_once_the_restored_server_answered_goes_on(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not taken for the old one, which would have to be stopped first."""

    def die(*_: object) -> None:
        raise Power

    source.back_up("one")
    source.expect(source.write("kept").after)
    journal = new_recovery(source.config)
    with monkeypatch.context() as patched:
        patched.setattr(archiving, "hand_over_history", die)
        with pytest.raises(Power):
            recovery(source, journal, "latest").run()
    assert "open" not in journal.done()
    recovery(source, journal, "latest").run()
    assert source.run("select note from notes") == "kept"
    assert journal.count("fence", "done") == 1


def test_what_was_said_once_need_not_be_said_again(source: Source) -> None:
    """Whoever resumes it at night types an identity and nothing else; a waiver may be added."""
    source.back_up("one")
    source.expect(source.write("kept").after)
    journal = new_recovery(source.config)
    first = recovery(source, journal, "latest")
    first.structure, first.prepared, first.accept_end, first.cut_after = (
        *(False, "rollback", Lsn.parse("0/1")),
        "fence",
    )
    with pytest.raises(Power):
        first.run()
    second = recovery(source, journal, "latest")
    second.digests, second.cut_after = False, "salvage"
    with pytest.raises(Power):
        second.run()
    third = recovery(source, journal, "latest")
    third.run()
    said = third.structure, third.digests, third.cdc, third.prepared, third.accept_end
    assert said == (False, False, True, "rollback", Lsn.parse("0/1"))
    assert journal.done()["compare_digests"]["not_examined"] == ["rows: not wanted"]
    assert "amcheck was not wanted" in journal.done()["examine"]["not_examined"][0]


def test_cdc_is_left_out_until_clients_are_in_and_brought_back_then(source: Source) -> None:
    source.back_up("one")
    source.expect(source.flushed())
    journal = new_recovery(source.config)
    for said, expected in ((False, False), (None, False), (True, True), (False, False)):
        running = recovery(source, journal, "latest")
        running.cdc = said
        running.identify()
        assert running.cdc is expected
    journal.write("let_clients_in", "done")
    running = recovery(source, journal, "latest")
    journal.write("check_identity", "done", system_identifier=running.identity)
    running.identify()
    assert running.cdc is True


def test_a_place_without_room_is_found_before_the_fence(source: Source) -> None:
    source.back_up("one")
    source.expect(source.write("kept").after)
    backup = source.backups["one"]
    backup.manifest.facts["database_bytes"] = 1 << 60
    path = source.config.repository.path / backup.prefix / "manifest.json"
    path.write_bytes(backup.manifest.sealed())
    with pytest.raises(RecoveryRefused, match=r"nothing was touched:\n  room: .*bytes free"):
        recovery(source, new_recovery(source.config), "latest").run()
    assert source.run("select note from notes") == "kept"


def test_an_account_that_is_kept_out_is_found_before_the_fence(source: Source) -> None:
    source.back_up("one")
    source.expect(source.write("kept").after)
    running = recovery(source, new_recovery(source.config), "latest")
    wrong = {"password": SecretStr("not this"), "password_file": None}
    postgres = source.config.postgres.model_copy(update=wrong)
    running.config = source.config.model_copy(update={"postgres": postgres})
    with pytest.raises(
        RecoveryRefused, match=r"nothing was touched:[\s\S]*  login: .*authentication"
    ):
        running.run()
    assert source.run("select note from notes") == "kept"


@pytest.mark.parametrize("name", ["../../x", "topics-20260101T000000Z-abcd", "nonsense", "/etc"])
def test_only_a_recovery_of_this_kind_is_resumed(source: Source, name: str) -> None:
    kind = WithoutConnect.kind
    with pytest.raises(ConfigError, match=r"there is no recovery|another kind"):
        Journal.named(source.config.repository.path, kind, name)


def test_an_older_recovery_is_not_resumed_behind_a_later_one(source: Source) -> None:
    """Its journal would have the server stopped that the later one brought back."""
    older = cut(source, "fence")
    recovery(source, new_recovery(source.config), "latest").run()
    source.write("since")
    with pytest.raises(RecoveryRefused, match=r"has stopped the server at .*nothing was touched"):
        recovery(source, older, "latest").run()
    assert source.run("select string_agg(note, ',' order by id) from notes") == "kept,since"


def test_topics_left_out_can_be_named_anew(source: Source) -> None:
    """A mistyped name shows only when topics are compared, long after the fence."""
    journal = new_recovery(source.config)
    source.back_up("one")
    source.expect(source.flushed())
    first = recovery(source, journal, "latest")
    first.without_topics, first.cut_after = ["notse"], "fence"
    with pytest.raises(Power):
        first.run()
    again = recovery(source, journal, "latest")
    again.without_topics = ["notes"]
    again.identify()
    silent = recovery(source, journal, "latest")
    silent.identify()
    assert silent.without_topics == ["notes"]


def test_a_publication_that_the_backup_does_not_know_is_refused(source: Source) -> None:
    """The backup's would be brought back, and no table be found in the one that was named."""
    source.run(f"create publication {source.config.cdc.publication} for table notes")
    source.back_up("one")
    source.expect(source.flushed())
    running = recovery(source, new_recovery(source.config), "latest")
    cdc = source.config.cdc.model_copy(update={"publication": "mistyped"})
    running.config = source.config.model_copy(update={"cdc": cdc})
    with pytest.raises(RecoveryRefused, match=r"publication: cdc\.publication is 'mistyped', ba"):
        running.run()
    source.run(f"alter publication {source.config.cdc.publication} rename to mistyped")
    assert not [one for one in running.refusals() if one.startswith("publication")]
