"""A recovery replaces what it was told by name, and keeps clients out until it is done."""

import secrets
import shutil
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from fixtures.stacks.protocol import Component
from pipeline.errors import RecoveryRefused, ServerError
from pipeline.postgres.replay.targets import Target
from pipeline.postgres.server import clients
from pipeline.postgres.server.server import LocalServer
from pipeline.repository.journal import Journal
from pipeline.runbooks.point_in_time import PointInTimeRecovery, new_recovery
from pipeline.wait import wait_until
from tests.recovery.history import Source


def recovery(source: Source, journal: Journal, typed: str) -> PointInTimeRecovery:
    return PointInTimeRecovery(source.config, Target.parse("latest"), journal, typed)


def test_a_wrong_identity_is_refused_before_anything_is_touched(source: Source) -> None:
    source.back_up("one")
    source.expect(source.write("x").after)
    server, rules = recovery_server(source), (source.data / "pg_hba.conf").read_bytes()
    postmaster = server.pid()
    journal = new_recovery(source.config)
    with pytest.raises(RecoveryRefused, match=r"typed '4711'.*nothing was touched"):
        recovery(source, journal, "4711").run()
    assert (server.pid(), source.run("select 1")) == (postmaster, 1)
    assert (source.data / "pg_hba.conf").read_bytes() == rules
    assert [path.name for path in source.data.parent.iterdir()] == [source.data.name]
    assert not (source.config.repository.path / "salvage").exists()
    assert list(journal.done()) == []
    assert [line["result"] for line in journal.lines()] == ["refused"]


def test_a_data_folder_of_another_server_is_refused(source: Source) -> None:
    source.back_up("one")
    identity = source.backups["one"].manifest.facts["system_identifier"]
    source.expect(source.write("x").after)
    source.archive()
    source.stack.kill(Component.POSTGRES)
    source.stack.wipe(Component.POSTGRES)
    source.stack.start(Component.POSTGRES)  # a new one, in the same place
    with pytest.raises(RecoveryRefused, match=f"{source.data} has the system identifier"):
        recovery(source, new_recovery(source.config), identity).identify()


@pytest.mark.parametrize("place", ["in its folder", "elsewhere"])
def test_clients_are_kept_out_until_they_are_let_in(source: Source, place: str) -> None:
    secret = secrets.token_hex(8)
    source.run(f"create role app login password '{secret}'")
    client = source.config.postgres.conninfo(user="app", password=secret)
    server, own = recovery_server(source), source.data / "pg_hba.conf"
    if place == "elsewhere":
        own = source.stack.folder / "outside.hba"
        shutil.move(source.data / "pg_hba.conf", own)
        source.run(f"alter system set hba_file = '{own}'")
    rules = own.read_bytes()
    with pytest.raises(ServerError, match="not refused by rules"):
        clients.refuse_unless_kept_out(source.config.postgres, within=timedelta(0))
    server.stop()
    for _ in range(2):  # repeated after an interruption
        clients.keep_out(server, ["postgres"])
    server.start()
    clients.refuse_unless_kept_out(source.config.postgres)
    assert refused(client) is None
    assert source.run("show cron.launch_active_jobs") == "off"
    assert source.run("select current_user") == "postgres"
    for _ in range(2):
        assert clients.let_in(server) == own
    wait_until("entry", lambda: entry(client), within=timedelta(seconds=10))
    assert own.read_bytes() == rules
    own.write_text("local all all reject\nhost all postgres all scram-sha-256\n")
    server.reload()  # the server's own rules are followed, by whatever name
    wait_until("refusal", lambda: refused(client), within=timedelta(seconds=10))
    server.stop()
    server.start()
    wait_until("answer", lambda: answer(source), within=timedelta(seconds=10))
    assert source.run("show hba_file") == str(own)


def recovery_server(source: Source) -> LocalServer:
    return LocalServer(source.data, source.tools, source.stack.log(Component.POSTGRES))


def refused(client: dict[str, Any]) -> str | None:
    try:
        psycopg.connect(**client).close()
    except psycopg.OperationalError as error:
        return None if "no pg_hba.conf entry" in str(error) else str(error)
    return "still let in"


def entry(client: dict[str, Any]) -> str | None:
    try:
        psycopg.connect(**client).close()
    except psycopg.OperationalError as error:
        return str(error)
    return None


def answer(source: Source) -> str | None:
    return entry(source.config.postgres.conninfo())
