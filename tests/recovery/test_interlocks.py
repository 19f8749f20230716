"""A recovery replaces what it was told by name, and keeps clients out until it is done."""

import secrets
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from fixtures.stacks.protocol import Component
from pipeline.errors import RecoveryRefused
from pipeline.postgres import clients
from pipeline.postgres.server import LocalServer
from pipeline.postgres.targets import Target
from pipeline.recovery.journal import Journal
from pipeline.recovery.point_in_time import PointInTimeRecovery, new_recovery
from pipeline.wait import wait_until
from tests.recovery.history import Source


def recovery(source: Source, journal: Journal, typed: str) -> PointInTimeRecovery:
    return PointInTimeRecovery(source.config, Target.parse("latest"), journal, typed)


def test_a_wrong_identity_is_refused_before_anything_is_touched(source: Source) -> None:
    source.back_up("one")
    source.expect(source.write("x").after)
    server, rules = recovery_server(source), (source.data / clients.HBA).read_bytes()
    postmaster = server.pid()
    journal = new_recovery(source.config)
    with pytest.raises(RecoveryRefused, match=r"typed '4711'.*nothing was touched"):
        recovery(source, journal, "4711").run()
    assert (server.pid(), source.run("select 1")) == (postmaster, 1)
    assert (source.data / clients.HBA).read_bytes() == rules
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


def test_clients_are_kept_out_until_they_are_let_in(source: Source) -> None:
    secret = secrets.token_hex(8)
    source.run(f"create role app login password '{secret}'")
    client = source.config.postgres.conninfo(user="app", password=secret)
    server = recovery_server(source)
    own = (source.data / clients.HBA).read_text()
    psycopg.connect(**client).close()
    for _ in range(2):  # repeated after an interruption
        clients.keep_out(source.data, ["postgres"], source.tools)
        server.reload()
        wait_until("refusal", lambda: refused(client), within=timedelta(seconds=10))
        assert source.run("select current_user") == "postgres"
    assert (source.data / clients.KEPT).read_text() == own
    clients.let_in(source.data)
    clients.let_in(source.data)
    server.reload()
    wait_until("entry", lambda: entry(client), within=timedelta(seconds=10))
    assert (source.data / clients.HBA).read_text() == own
    assert source.run("select current_user") == "postgres"


def test_a_crash_between_keeping_the_rules_and_writing_ours_can_be_repeated(
    source: Source,
) -> None:
    own = (source.data / clients.HBA).read_text()
    (source.data / clients.HBA).rename(source.data / clients.KEPT)
    clients.keep_out(source.data, ["postgres"], source.tools)
    assert "kept out" in (source.data / clients.HBA).read_text()
    clients.let_in(source.data)
    assert (source.data / clients.HBA).read_text() == own


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
