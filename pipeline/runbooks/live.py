"""What a recovery asks of the server that is open, be it restored or one that went on meanwhile."""

from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from pipeline.config import PipelineConfig, PostgresConfig
from pipeline.errors import (
    ConfigError,
    ObjectMissing,
    RecoveryRefused,
    RestoreError,
    ServerError,
)
from pipeline.postgres.server.session import NO_EVENT_TRIGGERS, connect_at_once
from pipeline.postgres.wal.lsn import Lsn, as_record_end
from pipeline.postgres.wal.receiver import EXPECTED_END, ExpectedEnd
from pipeline.wait import wait_until

RECEIVED = timedelta(seconds=5)
ARCHIVED = timedelta(seconds=60)
_WRONG_PASSWORD = "password authentication failed"  # noqa: S105 - what a server says
_AS_IT_WAS = (
    "the restored server has passwords as they were at the target. Where they were changed since, "
    "give postgres.password or password_file, and connectors, the earlier one, go on with "
    "--resume, and change them again afterwards"
)


def answering(postgres: PostgresConfig, log: Path | None = None) -> psycopg.Connection[Any]:
    """Connect at the public address, as soon as the server takes connections.

    `log` is where the server says more, for who waits.

    Raises RestoreError where the password is another one than at the target.
    """
    found: list[psycopg.Connection[Any]] = []

    def answers() -> str | None:
        try:
            found.append(connect_at_once(postgres, autocommit=True))
        except psycopg.OperationalError as error:
            if _WRONG_PASSWORD in str(error):
                raise RestoreError(f"{str(error).strip()}: {_AS_IT_WAS}") from error
            return str(error).strip()
        return None

    what = "connection to the opened server"
    wait_until(what, answers, within=timedelta(seconds=60), log=log)
    found[0].execute(NO_EVENT_TRIGGERS)
    return found[0]


def archive_mode_and_timeline(opened: psycopg.Connection[Any]) -> tuple[str, int]:
    """What the opened server archives, and where; RestoreError unless it is a primary."""
    row = opened.execute(
        """
        SELECT current_setting('archive_mode'), CASE WHEN NOT pg_is_in_recovery() THEN
               ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END
        """
    ).fetchone()
    if row is None or row[1] is None:
        raise RestoreError("the opened server is in recovery, expected a primary")
    return row[0], row[1]


def identity(live: psycopg.Connection[Any], user: str) -> str:
    """Identity of the live server; ConfigError unless our role may do what lies ahead."""
    row = live.execute(
        "SELECT system_identifier::text, current_setting('is_superuser'), pg_is_in_recovery()"
        "  FROM pg_control_system()"
    ).fetchone()
    if row is None or row[1] != "on":
        raise ConfigError(
            f"postgres.user {user!r} is no superuser: tables of any owner are made again, with "
            "their grants and policies, and triggers are kept quiet"
        )
    if row[2]:
        raise RecoveryRefused("the live server is a standby: restore on its primary")
    return str(row[0])


def handed_over(live: psycopg.Connection[Any], config: PipelineConfig) -> None:
    """Return once the repository holds the WAL up to now: by the receiver, else by a switch."""
    # where a segment ends, PostgreSQL 17 and later name the next one, which a switch does not begin
    row = live.execute(
        "SELECT lsn::text, pg_walfile_name(lsn - 1) FROM pg_current_wal_flush_lsn() lsn"
    ).fetchone()
    if row is None:
        raise RestoreError("the live server did not say where its WAL ends")
    now, archived = as_record_end(Lsn.parse(row[0])), config.repository.path / "wal" / row[1]

    def not_there() -> str | None:
        try:
            end = ExpectedEnd.read(config.repository.path).lsn
        except ObjectMissing:
            end = Lsn(0)
        told = f"received to {end}, {archived.name} is not archived"
        return None if end >= now or archived.exists() else told

    if (config.repository.path / EXPECTED_END).exists():
        with suppress(ServerError):
            return wait_until(f"WAL to {now}", not_there, within=RECEIVED)
    live.execute("SELECT pg_switch_wal()")
    return wait_until(f"WAL to {now}", not_there, within=ARCHIVED)


def committed(live: psycopg.Connection[Any], xid: str) -> bool:
    """Whether a transaction of an interrupted run took effect; waits while it is under way."""
    found: list[str | None] = []

    def settled() -> str | None:
        row = live.execute("SELECT pg_xact_status(%s::xid8)", [xid]).fetchone()
        found[:] = [row[0] if row else None]
        return "in progress" if found == ["in progress"] else None

    wait_until(f"transaction {xid}", settled, within=timedelta(minutes=5))
    if found == [None]:
        raise RecoveryRefused(f"the server no longer knows what became of transaction {xid}")
    return found == ["committed"]


def has_schema(live: psycopg.Connection[Any], name: str) -> bool:
    """Whether a schema is there."""
    row = live.execute("SELECT to_regnamespace(%s) IS NOT NULL", [name]).fetchone()
    return row == (True,)
