"""Sessions with settings of their own, whatever a role, a database or the server's file says.

What is set for everybody is meant for applications: a time-out ends a backup of hours, a read-only
default forbids the restore, and row security leaves out rows without a word.
"""

from collections.abc import Mapping
from typing import Any

import psycopg

from pipeline.config import PostgresConfig

SETTINGS: dict[str, str] = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "row_security": "off",  # an error where a policy would hide rows
    "client_min_messages": "warning",  # whatever else pg_restore says is an error
    # what the driver reads, and what names and values look like that are compared
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "quote_all_identifiers": "off",
}
# guards against DDL are event triggers; for superusers only
UNGUARDED = {"session_replication_role": "replica"}
# for a session whose changes must set off other triggers; older servers than 17 have no such word
NO_EVENT_TRIGGERS = """
    SELECT set_config(name, 'off', false) FROM pg_settings
     WHERE name = 'event_triggers' AND current_setting('is_superuser') = 'on'
"""
_TRANSACTION_TIMEOUT = 170_000  # server_version_num
ENCODING = "UTF8"  # a server without conversion (SQL_ASCII) would name its own, and give bytes


def connect(
    postgres: PostgresConfig,
    *,
    autocommit: bool = False,
    settings: Mapping[str, str] | None = None,
    **changes: str | int,
) -> psycopg.Connection[Any]:
    """Connect as configured, but for `changes`; `settings` are given beside our own."""
    asked = {"options": options(settings), "client_encoding": ENCODING} | changes
    connection = psycopg.connect(**postgres.conninfo(**asked), autocommit=True)
    try:
        # an older server refuses a session that names it
        if connection.info.server_version >= _TRANSACTION_TIMEOUT and "replication" not in changes:
            connection.execute("SET transaction_timeout = 0")
        connection.autocommit = autocommit
    except BaseException:
        connection.close()
        raise
    return connection


def options(settings: Mapping[str, str] | None = None) -> str:
    """Spell our settings, and those beside them, as a session is begun: `-c name=value …`."""
    wanted = SETTINGS | dict(settings or {})
    return " ".join(
        f"-c {name}=" + value.replace("\\", "\\\\").replace(" ", "\\ ")
        for name, value in wanted.items()
    )


def environment(
    postgres: PostgresConfig, settings: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Settings and password for a program that connects: a password is never an argument."""
    secret = postgres.secret()
    return {"PGOPTIONS": options(settings)} | ({"PGPASSWORD": secret} if secret else {})
