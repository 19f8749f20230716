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
from functools import cache, partial
from pathlib import Path
from typing import Any

import psycopg

from pipeline.config import PostgresConfig
from pipeline.errors import RestoreError, ServerError
from pipeline.postgres.replay import asking
from pipeline.postgres.replay.asking import Connect, Silence, anywhere, refuse_without_database
from pipeline.postgres.replay.targets import Target, TargetKind
from pipeline.postgres.server import isolation
from pipeline.postgres.server.control import system_identifier
from pipeline.postgres.server.server import LocalServer, private_socket
from pipeline.postgres.server.session import connect_at_once
from pipeline.postgres.wal.lsn import Lsn
from pipeline.postgres.wal.timelines import Span
from pipeline.wait import wait_until

_SUPERUSER = """
    select rolname from pg_roles where rolsuper and rolcanlogin
     order by rolname <> current_user, oid limit 1
"""


class SettingsTooLow(RestoreError):
    """Replay met a server with more connections, workers or locks than ours; it may begin again."""


@dataclass(frozen=True)
class ReplayOrder:
    """What to replay: the archive's view by a restore_command, one timeline, one stop.

    `spans` are that timeline's own and its ancestors', `stop` is the LSN at which replay must
    stand; None where only the server can find it.
    """

    restore_command: str
    spans: tuple[Span, ...]
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
) -> Iterator[Connect]:
    """Run a server that only this process can reach, with archiving off; stop it at the end.

    Gives a function that connects as `user`, or as a superuser of this server where `user` is none.
    """
    with private_socket(server.tools) as folder:
        server.stop()  # an interrupted recovery of ours left it, on a socket that nobody has
        given = isolation.alone(server, folder, port)
        try:
            # what the caller sets comes last: to empty a target after another was set is an error
            # of "multiple targets" (xlogrecovery.c, assign_recovery_target_xid and its like)
            others = {name: value for name, value in given.items() if name not in settings}
            server.start(others | settings)
        except ServerError as error:
            told = isolation.explained(str(error))
            raise RestoreError(f"the private server gave up: {told}") from error
        try:
            place = PostgresConfig(host=str(folder), port=port, dbname=dbname, user=user)
            at_once = partial(connect_at_once, place, autocommit=True)  # replay may go on

            @cache
            def account() -> str:
                # it trusts whom it lets in; a role that only checks could not read every row
                here = partial(at_once, user=user)
                with anywhere(lambda name=dbname: here(dbname=name)) as connection:
                    row = connection.execute(_SUPERUSER).fetchone()
                if row is None:
                    return user
                here = partial(at_once, user=row[0])
                with anywhere(lambda name=dbname: here(dbname=name)) as connection:
                    _refuse_another(server, connection)
                return str(row[0])

            yield lambda name=dbname: at_once(user=account(), dbname=name)
        finally:
            server.stop()


def _refuse_another(server: LocalServer, connection: psycopg.Connection[Any]) -> None:
    """Raise RestoreError where it is not the server of this folder that answers."""
    query = (
        "select current_setting('data_directory'), system_identifier::text from pg_control_system()"
    )
    row = connection.execute(query).fetchone()
    expected = str(server.data.resolve()), system_identifier(server.data, server.tools)
    found = None if row is None else (str(Path(row[0]).resolve()), row[1])
    if found != expected:
        raise RestoreError(f"the private server is another one: expected {expected}, found {found}")


def replay(
    server: LocalServer,
    order: ReplayOrder,
    connect: Connect,
    progress: Callable[[Lsn], None],
) -> Replayed:
    """Wait until replay stands at its target, and prove it. Nothing is promoted.

    Raises RestoreError with the server's own words when it ended, stalled or stands elsewhere, and
    BeginAgain where the database that is wanted is not there at the target.
    """
    begun = last_change = time.monotonic()
    position = server.log.stat().st_size
    seen, silence = Lsn(0), Silence(server, position)
    connection: psycopg.Connection[Any] | None = None
    opened = ExitStack()

    def reached() -> str | None:
        nonlocal seen, last_change, connection
        if server.pid() is None:
            told = isolation.explained(server.told())
            kind = SettingsTooLow if _too_low(told) else RestoreError
            raise kind(f"the server gave up before {order.target}:\n{told}")
        try:
            if connection is None or connection.closed:  # a new one for each look slows replay
                connection = opened.enter_context(anywhere(connect))
            lsn, paused = _standing(connection)
        except psycopg.OperationalError as error:
            return silence.told(str(error).strip())
        if lsn != seen:
            seen, last_change = lsn, time.monotonic()
            progress(lsn)
        # since PostgreSQL 14 it pauses, which is not that it stands at its target
        if paused and _too_low(told := server.told()):
            raise SettingsTooLow(f"replay cannot go on from {lsn}:\n{told}")
        if paused or (order.target.kind is TargetKind.LATEST and lsn >= (order.stop or lsn)):
            return None
        if time.monotonic() - last_change > asking.STALLED.total_seconds():
            raise RestoreError(
                f"replay stands at {lsn} for {asking.STALLED.total_seconds():g} s and not at "
                f"{order.stop or order.target}:\n{server.told(position)}\nits log: {server.log}"
            )
        return f"replayed to {lsn} of {order.stop or order.target}"

    with opened:
        wait_until(f"replay to {order.target}", reached, within=timedelta(days=7), log=server.log)
        proven = _proven(opened.enter_context(anywhere(connect)), order, time.monotonic() - begun)
        refuse_without_database(connect, f"{order.target} stands at {proven.lsn}")
        return proven


def _too_low(told: str) -> bool:
    """Whether a server says so in its last words; what it said before its last start is past."""
    return "hot standby is not possible because" in told.rpartition("starting PostgreSQL")[2]


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
    """Return the settings of a replay, beside those that keep its server to itself."""
    return {
        "restore_command": order.restore_command,
        "recovery_target_timeline": str(order.timeline),
        **order.target.settings(),
    }


def signal_file(order: ReplayOrder) -> str:
    """Name the file that starts recovery: a standby never ends by itself, a target must."""
    standby, recovery = isolation.SIGNALS
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
