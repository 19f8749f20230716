"""Roles, memberships and tablespaces of a backup against those of a server.

Read from pg_dumpall's own statements, so that nothing of them is understood wrongly: a statement
that the server's own dump has as well is there already. Passwords are compared, and never shown.
"""

import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from pipeline.config import PostgresConfig
from pipeline.errors import RestoreError
from pipeline.postgres.logical.logical import GLOBALS, copy_proven
from pipeline.postgres.server.session import ENCODING, connect, environment
from pipeline.postgres.server.tools import Tools, address
from pipeline.repository.sets import BackupSet

_NAME = r'("(?:[^"]|"")+"|\w+)'
_CREATE = re.compile(rf"CREATE ROLE {_NAME};")
_ALTER = re.compile(rf"ALTER ROLE {_NAME} ")
_COMMENT = re.compile(rf"COMMENT ON ROLE {_NAME} ")
_GRANT = re.compile(rf"GRANT {_NAME} TO {_NAME}[ ;]")
_GRANTED = re.compile(rf"^(GRANT {_NAME} TO {_NAME}(.*) GRANTED BY ){_NAME};$", re.MULTILINE)
_PLACE = re.compile(rf"(?:CREATE|ALTER|COMMENT ON) TABLESPACE {_NAME} |GRANT .* ON TABLESPACE ")
_PASSWORD = re.compile(r"(PASSWORD )'(?:[^']|'')*'")
# as PostgreSQL reads them (manual, 4.1): inside of these no statement ends, and no quote begins
_PART = re.compile(
    r"""
    (?P<noise> --[^\n]* | /\*.*?\*/ | (?<![^\n])\\[^\n]* )
    | (?<!\w)[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
    | (?<!\w)(?P<tag>\$(?:[^\W\d]\w*)?\$).*?(?P=tag)
    | [^'"$;/\\eE-]+ | (?P<open>['"]|/\*) | .
    """,
    re.DOTALL | re.VERBOSE,
)


@dataclass
class Difference:
    """What a backup's globals say that a server's do not, as statements."""

    missing: list[str] = field(default_factory=list)
    """Roles that are not there, with their attributes and memberships."""
    other: list[str] = field(default_factory=list)
    """Attributes and memberships of roles that are there."""
    places: list[str] = field(default_factory=list)
    """Tablespaces: a folder has to be made by hand, so nothing makes them."""

    def lines(self) -> Iterator[str]:
        """Yield it for people, without passwords."""
        for what, found in (
            ("missing", self.missing),
            ("other here", self.other),
            ("tablespace, make it by hand", self.places),
        ):
            yield from (f"{what}: {_shown(one)}" for one in found)


def compare(backup: BackupSet, into: PostgresConfig) -> Difference:
    """Compare the globals of a logical backup of a whole database with a server's."""
    with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
        path = Path(folder) / GLOBALS
        copy_proven(backup, path, GLOBALS)
        dumped = path.read_text(encoding="utf-8")
        wanted = list(statements(granted_by(dumped, _first_superuser(into))))
    with_passwords = any(_PASSWORD.search(one) for one in wanted)
    options = [] if with_passwords else ["--no-role-passwords"]
    return difference(wanted, statements(_dumped(into, "--globals-only", *options)))


def roles(of: PostgresConfig, *, first: str) -> list[str]:
    """List the statements that make a server's roles on another one, without passwords.

    `first` is the other's first superuser.
    """
    dumped = _dumped(of, "--roles-only", "--no-role-passwords")
    return list(statements(granted_by(dumped, first)))


def granted_by(dumped: str, first: str) -> str:
    """Let a server's first superuser, of another name there, grant what only the old one's could.

    Since 16 a membership names its grantor, who must hold the role with ADMIN OPTION unless it is
    the first superuser (user.c, check_role_grantor).
    """
    grants = list(_GRANTED.finditer(dumped))
    entitled = {(found[2], found[3]) for found in grants if "ADMIN" in found[4]}

    def by(found: re.Match[str]) -> str:
        return f"{found[1]}{found[5] if (found[2], found[5]) in entitled else spelled(first)};"

    return _GRANTED.sub(by, dumped)


def spelled(role: str) -> str:
    """Quote a name where pg_dumpall does."""
    plain = re.fullmatch("[a-z_][a-z_0-9]*", role)
    return role if plain else '"' + role.replace('"', '""') + '"'


def _first_superuser(of: PostgresConfig) -> str:
    with connect(of) as connection:
        row = connection.execute("SELECT rolname FROM pg_roles WHERE oid = 10").fetchone()
    if row is None:
        raise RestoreError(f"{of.host}:{of.port} has no role with the oid of a first superuser")
    return str(row[0])


def _dumped(server: PostgresConfig, *options: str) -> str:
    return Tools.of(server).run(
        "pg_dumpall",
        *(*options, f"--encoding={ENCODING}", *address(server), f"--database={server.dbname}"),
        env=environment(server),
    )


def difference(wanted: Iterable[str], present: Iterable[str]) -> Difference:
    """Sort what is wanted and not present by what it would take."""
    present = set(present)
    roles = {match[1] for one in present if (match := _CREATE.match(one))}
    found = Difference()
    for one in wanted:
        if one in present:
            continue
        if _PLACE.match(one):
            found.places.append(one)
        elif _subjects(one) - roles:
            found.missing.append(one)
        else:
            found.other.append(one)
    return found


def apply(backup: BackupSet, into: PostgresConfig, *, alter: bool = False) -> Difference:
    """Make the missing roles, in one transaction; `alter` what is other as well.

    Returns what differs still. Raises RestoreError where a missing role is missing after it.
    """
    found = compare(backup, into)
    with connect(into) as connection:
        for one in (*found.missing, *(found.other if alter else ())):
            try:
                connection.execute(one.encode())
            except psycopg.Error as error:
                raise RestoreError(
                    f"no role was made: {_shown(one)}\n{error.diag.message_primary}"
                ) from None  # the original would print the password
    left = compare(backup, into)
    if left.missing:
        raise RestoreError("still missing:\n" + "\n".join(Difference(left.missing).lines()))
    return left


def statements(dumped: str) -> Iterator[str]:
    """Statements of pg_dumpall, without psql's commands and the settings of the dump itself."""
    held = ""
    for part in _PART.finditer(dumped):
        if part["open"]:  # and never closed
            break
        held += "" if part["noise"] else part[0]
        if part[0] == ";":
            if not held.lstrip().startswith("SET "):
                yield held.strip()
            held = ""
    if held.strip():
        raise RestoreError(f"{GLOBALS} ends inside of a statement")


def _shown(statement: str) -> str:
    return _PASSWORD.sub(r"\1…", statement)


def _subjects(statement: str) -> set[str]:
    """Roles that a statement needs."""
    for pattern in (_CREATE, _ALTER, _COMMENT, _GRANT):
        if match := pattern.match(statement):
            return set(match.groups())
    return set()
