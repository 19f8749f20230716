"""WAL replay on a private server: up to the target, proven from the server, then promoted.

`pg_ctl -w start` returns while a server is still replaying, and replay without a target ends at
the first record it cannot read and promotes. So nothing is promoted here but by our own word,
after the server was asked where it stands.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import psycopg

from pipeline.config import PostgresConfig
from pipeline.errors import RestoreError, ServerError
from pipeline.postgres.lsn import Lsn
from pipeline.postgres.segments import MergedWal
from pipeline.postgres.server import LocalServer, private_socket
from pipeline.postgres.targets import Target, TargetKind
from pipeline.session import connect
from pipeline.wait import wait_until

STALLED = timedelta(seconds=60)
SIGNALS = ("standby.signal", "recovery.signal")
PRIVATE_HBA = "pg_hba.private.conf"
_TARGETS = (
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
)
_SUPERUSER = """
    select rolname from pg_roles where rolsuper and rolcanlogin
     order by rolname <> current_user, oid limit 1
"""

# settings of the old server come back with its files, and may delete, delay, follow or wait
_ALONE = {
    "archive_mode": "off",
    "hot_standby": "on",
    "wal_retrieve_retry_interval": "100ms",
    "primary_conninfo": "",
    "archive_cleanup_command": "",
    "recovery_end_command": "",
    "recovery_min_apply_delay": "0",
    "synchronous_standby_names": "",
    "logging_collector": "off",  # its words belong into the log of this recovery
}


@dataclass(frozen=True)
class ReplayOrder:
    """What to replay: the archive's view by a restore_command, one timeline, one stop.

    `start` is where the base backup began, `stop` the LSN at which replay must stand; None where
    only the server can find it.
    """

    restore_command: str
    wal: MergedWal
    start: Lsn
    timeline: int
    target: Target
    stop: Lsn | None


@dataclass(frozen=True)
class Replayed:
    """Where a server stood when replay had reached its target."""

    lsn: Lsn
    last_commit: str | None
    seconds: float


@contextmanager
def private_server(
    server: LocalServer,
    *,
    user: str,
    port: int,
    settings: dict[str, str],
    dbname: str = "postgres",
) -> Iterator[Callable[[], psycopg.Connection[Any]]]:
    """Run a server that only this process can reach, with archiving off; stop it at the end.

    Gives a function that connects as `user`, or as a superuser of this server where `user` is none.
    """
    with private_socket(server.tools) as folder:
        rules = server.data / PRIVATE_HBA
        rules.write_text("local all all trust\n")  # the socket's folder is the lock
        server.tools.own(rules)
        private = {
            "listen_addresses": "",
            "unix_socket_directories": str(folder),
            "port": str(port),
            "hba_file": str(rules),
        }
        server.stop()  # an interrupted recovery of ours left it, on a socket that nobody has
        try:
            fitting = _not_summarizing(server.data) | _keeping_tablespaces(server.data)
            server.start(_ALONE | fitting | private | settings)
        except ServerError as error:
            raise RestoreError(f"the private server gave up: {error}") from error
        try:
            place = PostgresConfig(host=str(folder), port=port, dbname=dbname, user=user)

            @cache
            def account() -> str:
                # it trusts whom it lets in; a role that only checks could not read every row
                with connect(place, autocommit=True) as connection:
                    row = connection.execute(_SUPERUSER).fetchone()
                return str(row[0]) if row else user

            yield lambda: connect(place, autocommit=True, user=account())
        finally:
            server.stop()
            rules.unlink()


def _not_summarizing(data: Path) -> dict[str, str]:
    """Turn summaries off: after an error the summarizer sleeps for 10 s, a shutdown waits for it.

    (walsummarizer.c, WalSummarizerMain. There is no such setting before PostgreSQL 17.)
    """
    major = int((data / "PG_VERSION").read_text())
    return {"summarize_wal": "off"} if major >= 17 else {}


def _keeping_tablespaces(data: Path) -> dict[str, str]:
    """Let recovery complete where tablespaces are folders instead of links, or it ends in a PANIC.

    (xlogrecovery.c, CheckTablespaceDirectory.) So they are in a restore that touches nothing else.
    """
    inside = [path for path in data.glob("pg_tblspc/*") if not path.is_symlink()]
    return {"allow_in_place_tablespaces": "on"} if inside else {}


def replay(
    server: LocalServer,
    order: ReplayOrder,
    connect: Callable[[], psycopg.Connection[Any]],
    progress: Callable[[Lsn], None],
) -> Replayed:
    """Wait until replay stands at its target, and prove it. Nothing is promoted.

    Raises RestoreError with the server's own words when it ended, stalled or stands elsewhere.
    """
    begun = last_change = time.monotonic()
    position = server.log.stat().st_size
    seen = Lsn(0)
    connection: psycopg.Connection[Any] | None = None
    opened = ExitStack()

    def reached() -> str | None:
        nonlocal seen, last_change, connection
        if server.pid() is None:
            raise RestoreError(f"the server gave up before {order.target}:\n{server.told()}")
        try:
            if connection is None or connection.closed:  # a new one for each look slows replay
                connection = opened.enter_context(connect())
            lsn, paused = _standing(connection)
        except psycopg.OperationalError as error:
            return f"not yet consistent: {str(error).strip()}"
        if lsn != seen:
            seen, last_change = lsn, time.monotonic()
            progress(lsn)
        if paused or (order.target.kind is TargetKind.LATEST and lsn >= (order.stop or lsn)):
            return None
        if time.monotonic() - last_change > STALLED.total_seconds():
            raise RestoreError(
                f"replay stands at {lsn} for {STALLED.total_seconds():g} s and not at "
                f"{order.stop or order.target}:\n{server.told(position)}"
            )
        return f"replayed to {lsn}"

    with opened:
        wait_until(f"replay to {order.target}", reached, within=timedelta(days=7), log=server.log)
        return _proven(opened.enter_context(connect()), order, time.monotonic() - begun)


def _standing(connection: psycopg.Connection[Any]) -> tuple[Lsn, bool]:
    row = connection.execute(
        "select pg_last_wal_replay_lsn()::text, pg_get_wal_replay_pause_state()"
    ).fetchone()
    if row is None or row[0] is None:
        return Lsn(0), False
    return Lsn.parse(row[0]), row[1] == "paused"


def _proven(connection: psycopg.Connection[Any], order: ReplayOrder, seconds: float) -> Replayed:
    row = connection.execute(
        """
        select pg_is_in_recovery(), pg_last_wal_replay_lsn()::text,
               pg_last_xact_replay_timestamp()::text, current_setting('archive_mode')
        """
    ).fetchone()
    if row is None or not row[0]:
        raise RestoreError(
            "the server left recovery by itself, before it was asked where it stands"
        )
    if row[3] != "off":
        raise RestoreError(f"the restored server has archive_mode {row[3]!r}, expected 'off'")
    lsn = Lsn.parse(row[1])
    if order.stop is not None and not _stands_at(order.target, lsn, order.stop):
        raise RestoreError(
            f"replay for {order.target} stands at {lsn}; the archived WAL says it must be "
            f"{order.stop}: nothing was promoted"
        )
    return Replayed(lsn, row[2], seconds)


def _stands_at(target: Target, lsn: Lsn, stop: Lsn) -> bool:
    """Judge a position: between two records only the server knows where the next one ends."""
    if target.kind in {TargetKind.LSN, TargetKind.IMMEDIATE}:
        return lsn >= stop
    return lsn == stop


def recovery_settings(order: ReplayOrder) -> dict[str, str]:
    """Return the settings of a replay; a stale target in the restored files must not count.

    The order matters: to empty one target after another was set is an error of "multiple targets"
    (xlogrecovery.c, assign_recovery_target_xid and its like).
    """
    chosen = order.target.settings()
    return (
        {name: "" for name in _TARGETS if name not in chosen}
        | {
            "restore_command": order.restore_command,
            "recovery_target_timeline": str(order.timeline),
        }
        | chosen
    )


def signal_file(order: ReplayOrder) -> str:
    """Name the file that starts recovery: a standby never ends by itself, a target must."""
    standby, recovery = SIGNALS
    return standby if order.target.kind is TargetKind.LATEST else recovery


def promote(connection: psycopg.Connection[Any], target: Target, within: timedelta) -> int:
    """End recovery and return the new timeline, as the server says it."""
    if target.kind is TargetKind.LATEST:
        connection.execute("select pg_promote(wait => false)")
    else:
        connection.execute("select pg_wal_replay_resume()")

    def promoted() -> str | None:
        row = connection.execute("select pg_is_in_recovery()").fetchone()
        return None if row == (False,) else "still in recovery"

    wait_until("promotion", promoted, within=within)
    # a transactional message is a write of its own and touches no table
    row = connection.execute(
        """
        select pg_logical_emit_message(true, 'pipeline', 'recovered'),
               ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
        """
    ).fetchone()
    if row is None:
        raise ServerError("the promoted server did not take a write")
    return int(row[1])
