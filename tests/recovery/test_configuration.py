"""A server whose configuration lies outside of its data folder, as Debian arranges it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from fixtures.stacks.protocol import Component
from pipeline.errors import RestoreError
from pipeline.postgres.base import configuration
from pipeline.postgres.server import clients
from pipeline.postgres.server.server import LocalServer
from pipeline.runbooks.point_in_time import new_recovery
from pipeline.wait import wait_until
from tests.recovery.history import SOON, Source
from tests.recovery.interrupted import Power
from tests.recovery.without_connect import recovery

FILES = ("postgresql.conf", "pg_hba.conf", "pg_ident.conf")


@pytest.fixture
def etc(source: Source) -> Iterator[Path]:
    """The folder of the configuration; the server runs by it."""
    folder = source.data.with_name("etc")
    folder.mkdir()
    server = LocalServer(source.data, source.tools, source.stack.log(Component.POSTGRES))
    server.stop()
    for name in FILES:
        shutil.move(source.data / name, folder / name)
    (folder / "conf.d").mkdir()
    (folder / "conf.d" / "more.conf").write_text("work_mem = '5MB'\n")
    with (folder / "postgresql.conf").open("a") as conf:
        conf.write(f"data_directory = '{source.data}'\nhba_file = '{folder}/pg_hba.conf'\n")
        conf.write(f"ident_file = '{folder}/pg_ident.conf'\ninclude_dir = 'conf.d'\n")
        conf.write(f"external_pid_file = '{folder}/main.pid'\n")
    source.tools.own(folder)
    server.start({"config_file": str(folder / "postgresql.conf")})
    wait_until("answer", lambda: unanswered(source), within=SOON)
    yield folder
    server.stop()
    shutil.rmtree(folder)


def unanswered(source: Source) -> str | None:
    try:
        source.connect().close()
    except psycopg.OperationalError as error:
        return str(error)
    return None


def test_configuration_elsewhere_comes_along_and_is_put_back_where_it_is_missing(
    source: Source, etc: Path
) -> None:
    backup = source.back_up("one")
    held = configuration.content_of(backup)
    expected = {str(etc / name) for name in (*FILES, "conf.d/more.conf")}
    assert set(held) == expected
    assert held[str(etc / "pg_hba.conf")] == (etc / "pg_hba.conf").read_bytes()
    assert configuration.lacking(backup) == []
    facts = backup.manifest.facts[configuration.FACT]
    assert facts["places"]["config_file"] == str(etc / "postgresql.conf")
    source.expect(source.write("kept").after)
    (etc / "postgresql.conf").unlink()
    (etc / "pg_ident.conf").write_text("# changed since\n")
    rules = (etc / "pg_hba.conf").read_bytes()
    running = recovery(source, new_recovery(source.config), "latest")
    running.cut_after = "open"
    with pytest.raises(Power):
        running.run()
    opened = running.journal.done()["open"]
    assert opened["written"] == [str(etc / "postgresql.conf")]
    assert opened["differing"] == [str(etc / "pg_ident.conf")]
    clients.refuse_unless_kept_out(source.config.postgres)
    running.server.stop()  # whoever starts it meanwhile opens it to nobody
    recovery(source, running.journal, "latest").run()
    assert running.journal.done()["let_clients_in"]["rules"] == str(etc / "pg_hba.conf")
    assert (etc / "pg_hba.conf").read_bytes() == rules
    assert source.run("show config_file") == str(etc / "postgresql.conf")
    assert source.run("show work_mem") == "5MB"
    assert source.run("select string_agg(note, ',') from notes") == "kept"


def test_what_a_role_lacks_to_read_the_configuration_is_what_it_is_told(source: Source) -> None:
    source.run("create role plain login password 'plain'", "grant pg_read_all_settings to plain")
    as_plain = {"user": "plain", "password": SecretStr("plain"), "password_file": None}
    postgres = source.config.postgres.model_copy(update=as_plain)
    told = configuration.read(postgres).not_read
    assert "pg_file_settings" in told
    source.run(*(grant for grants in told.values() for grant in grants.split("; ")))
    assert configuration.read(postgres).not_read == {}


def test_a_folder_without_any_configuration_is_not_opened(source: Source, tmp_path: Path) -> None:
    backup = source.back_up("one")
    with pytest.raises(RestoreError, match=r"holds no postgresql\.conf, and .*put the server's"):
        configuration.start_settings(backup, tmp_path)


def test_a_backup_without_access_rules_says_so_beforehand_and_keeps_clients_out(
    source: Source,
) -> None:
    rules = source.data / "pg_hba.conf"
    kept = rules.read_bytes()
    rules.unlink()
    backup = source.back_up("one")
    assert configuration.lacking(backup) == ["pg_hba.conf"]
    source.expect(source.write("kept").after)
    running = recovery(source, new_recovery(source.config), "latest")
    told: list[str] = []
    running.progress = told.append
    with pytest.raises(RestoreError, match=r"pg_hba\.conf: expected the server's access rules"):
        running.run()
    assert any("brings no pg_hba.conf: have it ready" in line for line in told)
    clients.refuse_unless_kept_out(source.config.postgres)
    rules.write_bytes(kept)
    source.tools.own(rules)
    recovery(source, running.journal, "latest").run()
    assert source.run("select string_agg(note, ',') from notes") == "kept"
