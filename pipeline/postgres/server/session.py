"""Sessions with settings of their own, whatever a role, a database or the server's file says.

What is set for everybody is meant for applications: a time-out ends a backup of hours, a read-only
default forbids the restore, and row security leaves out rows without a word.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg

from pipeline.config import PostgresConfig
from pipeline.errors import ServerError
from pipeline.wait import wait_until

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
PATIENCE = timedelta(seconds=10)
EVERY = timedelta(milliseconds=200)
# before a session begins libpq gives no SQLSTATE (57P03, 53300), and other languages are not known
_MOMENTARY = re.compile(
    "the database system is (starting up|in recovery mode|not yet accepting connections)"
    "|too many clients already|remaining connection slots are reserved|too many connections for"
)
ENCODING = "UTF8"  # a server without conversion (SQL_ASCII) would name its own, and give bytes


def connect(
    postgres: PostgresConfig,
    *,
    autocommit: bool = False,
    settings: Mapping[str, str] | None = None,
    patience: timedelta = PATIENCE,
    **changes: str | int,
) -> psycopg.Connection[Any]:
    """Connect as configured, but for `changes`; `settings` are given beside our own.

    What a server refuses for the moment is asked for again within `patience`.
    """
    asked = {"options": options(settings), "client_encoding": ENCODING} | changes
    connection = _admitted(postgres.conninfo(**asked), patience)
    try:
        # an older server refuses a session that names it
        if connection.info.server_version >= _TRANSACTION_TIMEOUT and "replication" not in changes:
            connection.execute("SET transaction_timeout = 0")
        connection.autocommit = autocommit
    except BaseException:
        connection.close()
        raise
    return connection


connect_at_once = partial(connect, patience=timedelta(0))
"""Connect, or fail: for who asks again by himself, or does something else meanwhile."""


def _admitted(conninfo: Mapping[str, Any], patience: timedelta) -> psycopg.Connection[Any]:
    found = list[psycopg.Connection[Any]]()
    errors = list[psycopg.OperationalError]()

    def refused() -> str | None:
        try:
            found.append(psycopg.connect(**conninfo, autocommit=True))
        except psycopg.OperationalError as error:
            if not _MOMENTARY.search(str(error)):
                raise
            errors[:] = [error]
            return str(error).strip()
        return None

    where = f"a connection to {conninfo['host']}:{conninfo['port']}"
    try:
        wait_until(where, refused, within=patience, every=EVERY)
    except ServerError:  # whoever connects expects the server's own words
        raise errors[0] from None
    return found[0]


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
