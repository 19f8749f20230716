"""Roles of a backup against those of a server: told first, made when told to, never changed."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fixtures.stacks.native import NativeStack
from pipeline.cli import app
from pipeline.config import PipelineConfig
from pipeline.errors import RestoreError
from pipeline.postgres.logical import globals as server_globals
from pipeline.postgres.logical import logical
from pipeline.repository.sets import Repository
from tests.recovery.museum import configured, connect

LOST = ("drop owned by visitor", "drop role visitor", "alter role guard nologin")


def run(museum: PipelineConfig, *statements: str) -> None:
    with connect(museum.postgres) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@pytest.fixture
def roles(museum: PipelineConfig) -> PipelineConfig:
    run(
        museum,
        "drop role if exists visitor, guard",
        "create role guard login password 'night watch'",
        "create role visitor login password 'a; line''s end' valid until '2030-01-01'",
        "grant visitor to guard with admin option",
        "comment on role visitor is E'two\\nlines; of text'",
        "alter role visitor set work_mem = '7MB'",
    )
    return museum


def test_missing_roles_are_made_and_others_are_left_alone(
    roles: PipelineConfig, repository: Repository
) -> None:
    backup = logical.take(roles, repository)
    assert not list(server_globals.compare(backup, roles.postgres).lines())
    run(roles, *LOST)
    found = server_globals.compare(backup, roles.postgres)
    assert len(found.missing) == 5
    assert [one.split()[2] for one in found.other] == ["guard"]
    left = server_globals.apply(backup, roles.postgres)
    assert left == server_globals.Difference(other=found.other)
    with connect(roles.postgres) as connection:
        (login,) = connection.execute(
            "select rolcanlogin from pg_roles where rolname = 'guard'"
        ).fetchone() or (None,)
    assert login is False
    assert not list(server_globals.apply(backup, roles.postgres, alter=True).lines())


def test_passwords_are_never_shown(
    roles: PipelineConfig, breakable: NativeStack, tmp_path: Path
) -> None:
    _, options = configured(roles, tmp_path, breakable)
    taken = CliRunner().invoke(app, ["backup", "logical", *options])
    assert taken.exit_code == 0, taken.output
    (kept,) = tmp_path.glob("sets/logical/*/globals.sql")
    assert kept.stat().st_mode & 0o077 == 0
    run(roles, *LOST)
    told = CliRunner().invoke(app, ["restore", "globals", *options])
    assert told.exit_code == 0, told.output
    assert "missing: CREATE ROLE visitor;" in told.output
    assert "PASSWORD …" in told.output
    assert "SCRAM" not in told.output


def test_a_backup_without_passwords_differs_by_none(
    roles: PipelineConfig, repository: Repository
) -> None:
    backup = logical.take(roles, repository, role_passwords=False)
    run(roles, "alter role guard password 'another'")
    assert not list(server_globals.compare(backup, roles.postgres).lines())


def test_a_backup_of_tables_has_no_globals(roles: PipelineConfig, repository: Repository) -> None:
    backup = logical.take(roles, repository, tables=["artists"])
    with pytest.raises(RestoreError, match=r"holds no globals\.sql"):
        server_globals.compare(backup, roles.postgres)


def test_only_what_the_first_superuser_granted_has_another_grantor() -> None:
    """On a server whose first superuser has another name, PostgreSQL refuses the old grantor."""
    dumped = (
        "GRANT keeper TO deputy WITH ADMIN OPTION, INHERIT TRUE GRANTED BY postgres;\n"
        'GRANT keeper TO "a guest" WITH INHERIT FALSE GRANTED BY deputy;\n'
        "GRANT keeper TO clerk WITH INHERIT TRUE GRANTED BY postgres;\n"
    )
    granted = server_globals.granted_by(dumped, "the first")
    grantors = [line.partition(" GRANTED BY ")[2] for line in granted.splitlines()]
    assert grantors == ['"the first";', "deputy;", '"the first";']
    assert server_globals.granted_by(dumped, "postgres") == dumped


def test_statements_end_where_postgresql_ends_them() -> None:
    """A quote alone in a comment, a semicolon in one, a dollar quote, an escaped string."""
    wanted = [
        "COMMENT ON ROLE a IS 'five \" wide; and -- so on';",
        'CREATE ROLE "it\'s; a ""name";',
        "COMMENT ON ROLE b IS E'it\\'s; \" here';",
        "COMMENT ON ROLE c IS $one$ it's $$ \"; $one$;",
        "ALTER ROLE e SET search_path TO 'a\n\nb';",
    ]
    noise = "-- it's a dump\n\\restrict a'b\nSET client_encoding = 'UTF8';\n/* don't; */\n\n"
    assert list(server_globals.statements(noise + "\n\n".join(wanted) + "\n")) == wanted
    for cut in (wanted[0][:-9], wanted[1][:-1], "CREATE ROLE d"):
        with pytest.raises(RestoreError, match="ends inside of a statement"):
            list(server_globals.statements(cut))


def test_a_lone_quote_in_a_comment_is_no_difference(
    roles: PipelineConfig, repository: Repository
) -> None:
    run(roles, "comment on role guard is '19\" rack; it''s his'")
    backup = logical.take(roles, repository)
    run(roles, "comment on role guard is null")
    assert [one[:21] for one in server_globals.compare(backup, roles.postgres).other] == [
        "COMMENT ON ROLE guard"
    ]
    assert not list(server_globals.apply(backup, roles.postgres, alter=True).lines())
