"""What is asked of a server right after it was opened, while only this package may connect.

Both questions end in bounded time: a commit that waits for a standby which is gone, and a prepared
transaction that stands open at the target, would make every later step wait in silence.
"""

import threading
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import sql

from pipeline.config import PostgresConfig
from pipeline.errors import ConfigError, RestoreError
from pipeline.postgres.server import session

COMMIT_SECONDS = 10
DECISIONS = {"commit": "COMMIT PREPARED", "rollback": "ROLLBACK PREPARED"}


def prove_commit(opened: psycopg.Connection[Any]) -> None:
    """Commit something that writes WAL, at the public address.

    Raises RestoreError where that does not return: the restored configuration waits for standbys
    of the server that was lost (manual, 26.2.8), and every client's commit would wait as well.
    """
    warnings = list[str]()
    opened.add_notice_handler(lambda told: warnings.append(str(told.message_primary)))
    # statement_timeout ends before a commit waits; to cancel the wait leaves the commit, and warns
    impatient = threading.Timer(COMMIT_SECONDS, opened.cancel_safe)
    impatient.start()
    try:
        opened.execute("SELECT pg_logical_emit_message(true, 'pipeline', 'a commit returns')")
    finally:
        impatient.cancel()
        impatient.join()
    if warnings:
        row = opened.execute("SELECT current_setting('synchronous_standby_names')").fetchone()
        raise RestoreError(
            f"no commit returns within {COMMIT_SECONDS} s ({warnings[0]}): "
            f"synchronous_standby_names is {row and row[0]!r}, and no such standby streams from "
            "the restored server. Start one, or ALTER SYSTEM SET synchronous_standby_names = '' "
            "and reload; then go on"
        )


def settle_prepared(
    opened: psycopg.Connection[Any],
    postgres: PostgresConfig,
    decision: str | None,
    progress: Callable[[str], None],
) -> list[str]:
    """End the prepared transactions that stand open at the target, as the operator decided.

    They hold their locks and their snapshot: neither a slot nor amcheck would come to an end.

    Raises RestoreError naming each where nothing was decided.
    """
    found = opened.execute(
        "SELECT gid, database, owner, prepared::text FROM pg_prepared_xacts ORDER BY prepared"
    ).fetchall()
    told = [f"{gid!r} of {who} in {database}, prepared {at}" for gid, database, who, at in found]
    if not found:
        return []
    if decision is None:
        raise RestoreError(
            f"prepared transactions stand open at the target: {'; '.join(told)}. Whoever "
            "coordinates them knows how they ended: COMMIT PREPARED or ROLLBACK PREPARED each, or "
            "all of them by --prepared commit or --prepared rollback; then go on"
        )
    for gid, database, _, _ in found:
        with session.connect(postgres, dbname=database, autocommit=True) as there:
            there.execute(sql.SQL(f"{DECISIONS[decision]} {{}}").format(sql.Literal(gid)))
    for line in told:
        progress(f"  {decision}: {line}")
    return told


def decided(text: str | None) -> str | None:
    """Read --prepared."""
    if text is not None and text not in DECISIONS:
        raise ConfigError(f"--prepared: expected {' or '.join(DECISIONS)}, found {text!r}")
    return text
