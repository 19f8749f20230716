"""Who may connect while a recovery is not yet verified: nobody but us and CDC.

The server's own rules may lie anywhere and are never touched. It is led to ours by a setting in
the data folder, which holds for whoever starts it, and believed only when it refuses a client.
"""

import os
import secrets
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from pathlib import Path

import psycopg

from pipeline.config import PostgresConfig
from pipeline.errors import RestoreError
from pipeline.postgres.server import hba
from pipeline.postgres.server.isolation import WRITTEN_BY_ALTER_SYSTEM
from pipeline.postgres.server.server import LocalServer
from pipeline.repository.durable import sync_folders
from pipeline.wait import wait_until

RULES = "pg_hba.recovery.conf"
"""Our rules; once clients are let in it is a link to the server's own, until its next start."""
_UNFINISHED = "# a recovery is not finished: clients are kept out until it lets them in"
_OWN = "# the rules of this server are in "
_REFUSED = "pg_hba.conf"  # stands in what a server says of its rules, in every language


def keep_out(
    server: LocalServer, users: Collection[str], settings: Mapping[str, str] | None = None
) -> None:
    """Have the server start with rules by which only `users` get in. Can be repeated.

    They come by what the server's own rules say of them (peer, a certificate), else by password.
    `settings` are those that it is started with.
    """
    own = _kept(server.data / RULES) or _own_rules(server, settings)
    lines = [_UNFINISHED, f"{_OWN}{own}", *hba.narrowed(own, users)]
    # md5 takes SCRAM secrets as well (manual, 20.5), so it fits whatever the role has
    for user in sorted(users):
        lines += [f'local all "{user}" md5', f'host all,replication "{user}" all md5']
    _write(server, server.data / RULES, lines)
    _write(server, _settings_of(server), [*_settings_without_ours(server), *_ours(server)])


def refuse_unless_kept_out(
    postgres: PostgresConfig, within: timedelta = timedelta(seconds=30)
) -> None:
    """Return once a client that nobody let in is refused by the rules; ServerError otherwise."""
    # a role that may not exist: rules are asked first, and say so when no line lets it in
    stranger = postgres.conninfo(user=f"stranger_{secrets.token_hex(4)}", password="")

    def kept_out() -> str | None:
        try:
            psycopg.connect(**stranger).close()
        except psycopg.OperationalError as error:
            return None if _REFUSED in str(error) else f"not refused by rules: {error}"
        return "a client that nobody knows was let in"

    wait_until(f"clients kept out of {postgres.host}:{postgres.port}", kept_out, within=within)


def let_in(server: LocalServer, settings: Mapping[str, str] | None = None) -> Path:
    """Give the server its own access rules back, and return where they are, without a restart.

    `settings` are those it was started with. Until its next start it reads them by our name.

    Raises RestoreError where it has none: it would go on with ours, and tell only its log.
    """
    _write(server, _settings_of(server), _settings_without_ours(server))
    own = _own_rules(server, settings)
    if not _holds_rules(own):
        _write(server, _settings_of(server), [*_settings_without_ours(server), *_ours(server)])
        raise RestoreError(
            f"{own}: expected the server's access rules, found none: clients stay out. Put them "
            "there, then go on with --resume"
        )
    link = server.data / f"{RULES}.new"
    link.unlink(missing_ok=True)
    link.symlink_to(own)
    link.replace(server.data / RULES)
    if server.pid() is not None:
        server.reload()
    return own


def _own_rules(server: LocalServer, settings: Mapping[str, str] | None) -> Path:
    """Where the server's configuration has its access rules."""
    given = {"data_directory": str(server.data), **(settings or {})}
    words = [word for name, value in given.items() for word in ("-c", f"{name}={value}")]
    asked = server.tools.run("postgres", "-C", "hba_file", "-D", server.data, *words)
    return Path(asked.splitlines()[-1])


def _kept(rules: Path) -> Path | None:
    """Where the server's own rules are, by rules of ours: its configuration leads to ours now."""
    if rules.is_symlink() or not rules.exists():
        return None
    found = (line for line in rules.read_text().splitlines() if line.startswith(_OWN))
    return next((Path(line.removeprefix(_OWN)) for line in found), None)


def _holds_rules(path: Path) -> bool:
    """Whether any line of a file is no comment."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return any(line.strip() and not line.strip().startswith(b"#") for line in lines)


def _settings_of(server: LocalServer) -> Path:
    return server.data / WRITTEN_BY_ALTER_SYSTEM


def _ours(server: LocalServer) -> list[str]:
    quoted = str(server.data / RULES).replace("'", "''")
    # jobs are clients too, and of those of pg_cron this holds without a restart (its README)
    return [f"hba_file = '{quoted}'", "cron.launch_active_jobs = 'off'"]


def _settings_without_ours(server: LocalServer) -> list[str]:
    path, ours = _settings_of(server), _ours(server)
    lines = path.read_text(errors="surrogateescape").splitlines() if path.exists() else []
    return [line for line in lines if line not in ours]


def _write(server: LocalServer, path: Path, lines: Iterable[str]) -> None:
    """Replace a file of the data folder as a whole: a server may be started at any moment."""
    new = path.with_name(f"{path.name}.new")
    new.write_text("".join(f"{line}\n" for line in lines), errors="surrogateescape")
    new.chmod(0o600)
    server.tools.own(new)
    with new.open("rb") as stream:
        os.fsync(stream.fileno())
    new.replace(path)
    sync_folders(str(path.parent), str(path.parent))
