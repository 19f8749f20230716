"""An empty database for a dump, which sorts and compares text as the dumped one did."""

from typing import Any

import psycopg
from psycopg import Connection, sql

from pipeline.errors import RestoreError
from pipeline.repository.sets import BackupSet

_PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}  # pg_database.datlocprovider
_WITH_PROVIDERS = 150000  # server_version_num


def make_database(connection: Connection[Any], name: str, backup: BackupSet) -> None:
    """Make it with encoding, locale and locale provider of the dumped one.

    Raises RestoreError where this server cannot: another provider would sort otherwise.
    """
    options = _options(backup.manifest.facts, connection.info.server_version)
    words = [sql.SQL(f"{word} {{}}").format(sql.Literal(value)) for word, value in options.items()]
    create = sql.SQL("CREATE DATABASE {} TEMPLATE template0 {}")
    try:
        connection.execute(create.format(sql.Identifier(name), sql.SQL(" ").join(words)))
    except psycopg.Error as error:
        told = ", ".join(f"{word} {value}" for word, value in options.items())
        raise RestoreError(
            f"{backup.label}: database {name} cannot be made as the dumped one was, with {told}: "
            f"{str(error).strip()}"
        ) from error


def _options(facts: dict[str, Any], version: int) -> dict[str, str]:
    options = {
        "ENCODING": facts["encoding"],
        "LC_COLLATE": facts["collate"],
        "LC_CTYPE": facts.get("ctype", facts["collate"]),
    }
    if (known := facts.get("provider")) is None:
        return options  # of a backup that did not note it
    provider = _PROVIDERS.get(known, known)
    if version >= _WITH_PROVIDERS or provider != "libc":  # or it would be that of template0
        options["LOCALE_PROVIDER"] = provider
    if facts["locale"] and provider != "libc":
        options[f"{provider.upper()}_LOCALE"] = facts["locale"]
    if facts["icu_rules"]:
        options["ICU_RULES"] = facts["icu_rules"]
    return options
