"""A server reached by a socket, by an account without a password: peer, as Debian has it."""

import getpass
import socket
from pathlib import Path

import pytest

from fixtures.stacks.protocol import Component
from pipeline.postgres.replay.targets import Target
from pipeline.postgres.server import clients, hba, session
from pipeline.postgres.server.server import not_refused, private_socket
from pipeline.runbooks.point_in_time import new_recovery
from tests.recovery.history import Source
from tests.recovery.interrupted import Power
from tests.recovery.without_connect import WithoutConnect

OWN = """\
# TYPE DATABASE USER ADDRESS METHOD
local all             postgres                peer map=ours  # administrators
local "a db",shop     clerk,"the owner"       scram-sha-256
host  all             +staff   10.0.0.0/8     trust
host  replication     all      10.0.0.0 255.0.0.0 \\
                               scram-sha-256
include more.conf
"""


def test_rules_are_narrowed_to_who_may_come(tmp_path: Path) -> None:
    (tmp_path / "pg_hba.conf").write_text(OWN)
    (tmp_path / "more.conf").write_text('hostssl all "the owner" all cert\n')
    assert list(hba.narrowed(tmp_path / "pg_hba.conf", ["postgres", "the owner"])) == [
        'local all "postgres" peer map=ours',
        'local "a db",shop "the owner" scram-sha-256',
        'host replication "postgres" 10.0.0.0 255.0.0.0 scram-sha-256',
        'host replication "the owner" 10.0.0.0 255.0.0.0 scram-sha-256',
        'hostssl all "the owner" all cert',
    ]
    assert list(hba.narrowed(tmp_path / "none.conf", ["postgres"])) == []


def test_a_fence_sees_whether_a_socket_answers(source: Source) -> None:
    with private_socket(source.tools) as folder:
        assert not_refused(str(folder), 5432) is None
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(folder / ".s.PGSQL.5432"))
            server.listen()
            assert not_refused(str(folder), 5432) == "still accepts connections"
        assert not_refused(str(folder), 5432) is None  # a killed server leaves the file


def test_a_recovery_comes_by_the_socket_and_without_a_password(source: Source) -> None:
    postgres = source.config.postgres
    with private_socket(source.tools) as folder:
        rules = (source.data / "pg_hba.conf").read_text()
        (source.data / "pg_hba.conf").write_text(f"local all all peer map=ours\n{rules}")
        (source.data / "pg_ident.conf").write_text(f"ours {getpass.getuser()} {postgres.user}\n")
        source.run(f"alter system set unix_socket_directories = '{folder}'")
        source.stack.kill(Component.POSTGRES)
        source.stack.start(Component.POSTGRES)
        source.back_up("one")
        source.expect(source.write("kept").after)
        by_socket = {"host": str(folder), "password": None, "password_file": None}
        there = postgres.model_copy(update=by_socket)
        config = source.config.model_copy(update={"postgres": there})
        identity = source.backups["one"].manifest.facts["system_identifier"]
        journal = new_recovery(config)
        running = WithoutConnect(config, Target.parse("latest"), journal, identity)
        running.cut_after = "open"
        with pytest.raises(Power):
            running.run()
        clients.refuse_unless_kept_out(there)
        WithoutConnect(config, Target.parse("latest"), journal, identity).run()
        with session.connect(there) as connection:
            row = connection.execute("select note from notes").fetchone()
    assert row == ("kept",)
