"""A server that we start on restored files keeps to itself, whatever those files say."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipeline.postgres.base.restore import unpack
from pipeline.postgres.replay.replay import private_server
from pipeline.postgres.replication import subscriptions
from pipeline.postgres.server.isolation import explained
from pipeline.postgres.server.server import LocalServer
from pipeline.wait import wait_until
from tests.recovery.history import SOON, History, Source
from tests.recovery.unpacked import free_place, opened


@pytest.fixture(scope="module")
def restored(history: History) -> Iterator[Path]:
    """A base backup, unpacked once; its server is started by each test in its own way."""
    places = free_place(history.source)
    data = next(places)
    unpack(history.source.backups["first"], data, history.source.tools)
    yield data
    next(places, None)


@pytest.fixture
def copy(history: History, restored: Path) -> Iterator[Path]:
    data = restored.with_name("copy")
    shutil.copytree(restored, data, symlinks=True)
    history.source.tools.own(data)
    yield data
    shutil.rmtree(data)


ELSEWHERE = """
data_directory = '{live}'
hba_file = '{live}/pg_hba.conf'
ident_file = '{live}/pg_ident.conf'
external_pid_file = '{live}/external.pid'
unix_socket_directories = '{live}'
listen_addresses = '*'
log_directory = '{live}'
logging_collector = on
ssl = on
ssl_key_file = '/nonexistent.key'
shared_preload_libraries = 'pg_cron, no_such_library'
huge_pages = on
shared_buffers = '900TB'
lc_messages = 'xx_YY'
include = '/nonexistent/included.conf'
a line that is no setting
"""


def test_configuration_of_the_live_server_leads_no_server_of_ours_into_its_folder(
    history: History, restored: Path, copy: Path
) -> None:
    source, live = history.source, restored
    (copy / "postgresql.conf").write_text(ELSEWHERE.format(live=live))
    before = sorted(path.name for path in live.iterdir())
    with opened(copy, source) as connection:
        assert _shown(connection, "data_directory") == str(copy)
        assert _shown(connection, "external_pid_file") == ""
        assert _shown(connection, "shared_preload_libraries") == ""
        assert LocalServer(live, source.tools, copy).pid() is None
        assert sorted(path.name for path in live.iterdir()) == before


BY_ALTER_SYSTEM = """
hba_file = '/nonexistent/pg_hba.conf'
external_pid_file = '{live}/external.pid'
listen_addresses = '*'
session_preload_libraries = 'no_such_library'
shared_preload_libraries = 'no_such_library'
primary_conninfo = 'host=127.0.0.1 port=1'
primary_slot_name = 'somebody'
recovery_target_name = 'stale'
zero_damaged_pages = on
huge_pages = on
max_connections = 4
superuser_reserved_connections = 1
"""


def test_what_alter_system_wrote_leads_it_nowhere_either(
    history: History, restored: Path, copy: Path
) -> None:
    (copy / "postgresql.auto.conf").write_text(BY_ALTER_SYSTEM.format(live=restored))
    with opened(copy, history.source) as connection:
        found = {
            name: _shown(connection, name) for name in ("listen_addresses", "primary_slot_name")
        }
        assert found == {"listen_addresses": "", "primary_slot_name": ""}
        assert _shown(connection, "zero_damaged_pages") == "off"
        assert int(_shown(connection, "max_connections")) >= 20
    assert not (restored / "external.pid").exists()


@pytest.mark.parametrize("command", [["tail", "-f", "PG_VERSION"], ["sh", "-c", "read line"]])
def test_who_only_works_in_the_folder_is_not_its_server(
    history: History, copy: Path, command: list[str]
) -> None:
    server = LocalServer(copy, history.source.tools, copy.with_name("none.log"))
    with subprocess.Popen(command, cwd=copy, stdin=subprocess.PIPE) as other:
        try:
            (copy / "postmaster.pid").write_text(f"{other.pid}\n{copy}\n")  # a number comes again
            assert server.pid() is None
            server.stop()
            assert other.poll() is None
            (copy / "postmaster.pid").unlink()
            with private_server(server, user="postgres", port=5432, settings={}):
                assert server.pid() not in {None, other.pid}
            assert other.poll() is None
        finally:
            other.kill()


def test_a_server_is_found_by_any_name_of_its_folder(history: History, copy: Path) -> None:
    """Started by a path with a link in it, the kernel knows it by another."""
    tools, link = history.source.tools, copy.with_name("link")
    link.symlink_to(copy.parent)
    by_link = LocalServer(link / copy.name, tools, copy.with_name("link.log"))
    try:
        with private_server(by_link, user="postgres", port=5432, settings={}):
            assert by_link.pid() is not None
            assert by_link.pid() == LocalServer(copy, tools, by_link.log).pid()
        assert by_link.pid() is None
    finally:
        link.unlink()


def test_a_server_whose_folder_was_replaced_still_counts(history: History, copy: Path) -> None:
    tools, moved = history.source.tools, copy.with_name("moved")
    server = LocalServer(copy, tools, copy.with_name("replaced.log"))
    with private_server(server, user="postgres", port=5432, settings={}) as connect:
        connect().close()
        pid = server.pid()
        shutil.copytree(copy, moved, symlinks=True)
        shutil.rmtree(copy)
        assert server.pid() == pid
        moved.rename(copy)
        assert server.pid() == pid


def test_a_trial_leaves_the_slot_of_a_publisher_to_the_one_who_subscribes(source: Source) -> None:
    source.run("create database publisher")
    into = source.config.postgres.conninfo(dbname="publisher")
    with ExitStack() as stack:
        publisher = stack.enter_context(_connected(into))
        publisher.execute("create table news (line text)")
        publisher.execute("create publication news for table news")
        publisher.execute("select pg_create_logical_replication_slot('news', 'pgoutput')")
        own = " ".join(f"{name}={value}" for name, value in into.items())
        source.run(
            "create table news (line text)",
            f"create subscription news connection '{own}' publication news"
            " with (create_slot = false, copy_data = false, slot_name = 'news')",
        )
        backup = source.back_up("subscribed")
        source.run("alter subscription news disable")  # away for a moment, as a network can be
        publisher.execute("insert into news values ('first')")
        wait_until("leave", lambda: _held(publisher), within=SOON)
        before = _slot(publisher)
        data = stack.enter_context(_place(source))
        unpack(backup, data, source.tools)
        with opened(data, source) as trial:
            asking = "select count(*) from pg_stat_activity where backend_type ~ 'logical|slotsync'"
            assert trial.execute(asking).fetchone() == (0,)
            found = subscriptions.enabled(trial)
            assert [str(one) for one in found] == ["postgres.news"]
            subscriptions.disable(trial, found)
            assert subscriptions.enabled(trial) == []
            assert subscriptions.enable(trial, [*found, found[0]._replace(name="gone")]) == [
                found[0]._replace(name="gone")
            ]
            assert subscriptions.enabled(trial) == found
            assert _slot(publisher) == before
        source.run("alter subscription news enable")
        wait_until("arrival", lambda: _arrived(source), within=SOON)
        source.run("drop subscription news")


def test_a_library_that_replay_needs_is_named_by_its_setting() -> None:
    told = "FATAL:  resource manager with ID 128 not registered"
    assert "postgres.replay_libraries" in explained(told)
    assert explained("FATAL:  other") == "FATAL:  other"


def _shown(connection: psycopg.Connection[Any], name: str) -> str:
    (value,) = connection.execute(f"show {name}".encode()).fetchone() or ("nothing",)
    return str(value)


def _connected(keywords: dict[str, Any]) -> psycopg.Connection[Any]:
    return psycopg.connect(**keywords, autocommit=True)


@contextmanager
def _place(source: Source) -> Iterator[Path]:
    yield from free_place(source)


def _slot(publisher: psycopg.Connection[Any]) -> Any:  # noqa: ANN401 - the query's row
    query = "select active_pid, confirmed_flush_lsn::text from pg_replication_slots"
    return publisher.execute(query).fetchone()


def _held(publisher: psycopg.Connection[Any]) -> str | None:
    (pid, _) = _slot(publisher)
    return None if pid is None else f"held by {pid}"


def _arrived(source: Source) -> str | None:
    found = source.run("select count(*) from news")
    return None if found == 1 else f"{found} rows"
