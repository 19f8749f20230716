"""Who may connect while a recovery is not yet verified: nobody but us and CDC."""

from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.postgres.tools import Tools

HBA = "pg_hba.conf"
KEPT = "pg_hba.conf.clients"


def keep_out(data: Path, users: Iterable[str], tools: Tools) -> None:
    """Put rules in place by which only `users` get in; the server's own are kept beside.

    Repeating it keeps the first copy: the second would be our own rules.
    """
    rules, kept = data / HBA, data / KEPT
    if not rules.exists() and not kept.exists():
        raise ConfigError(
            f"{rules} is not there: this server keeps its access rules elsewhere (hba_file), "
            "and a recovery could not keep clients out"
        )
    if not kept.exists():
        rules.rename(kept)
    # md5 takes SCRAM secrets as well (manual, 20.5), so it fits whatever the role has
    lines = [f"# a recovery is not finished: clients are kept out; their rules are in {KEPT}"]
    for user in sorted(users):
        lines += [f'local all "{user}" md5', f'host all,replication "{user}" all md5']
    rules.write_text("\n".join([*lines, ""]))
    rules.chmod(0o600)
    tools.own(rules)


def let_in(data: Path) -> None:
    """Put the server's own rules back; the caller reloads the server."""
    if (data / KEPT).exists():
        (data / KEPT).replace(data / HBA)
