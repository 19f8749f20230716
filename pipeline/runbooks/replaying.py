"""A plan carried out on a server of its own: the archive as one folder, replay, the target proven.

Of a recovery that takes the server's place, and of one that only reads rows beside it.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from pipeline.config import PipelineConfig, PostgresConfig
from pipeline.errors import RestoreError
from pipeline.postgres.base.row_digests import RowDigests
from pipeline.postgres.replay.replay import (
    Replayed,
    ReplayOrder,
    SettingsTooLow,
    private_server,
    promote,
    recovery_settings,
    replay,
    signal_file,
)
from pipeline.postgres.replay.targets import Target
from pipeline.postgres.server.isolation import SIGNALS, required, shared_buffers
from pipeline.postgres.server.server import LocalServer
from pipeline.postgres.wal import archiving
from pipeline.postgres.wal.lsn import Lsn
from pipeline.postgres.wal.segments import merged_wal
from pipeline.postgres.wal.timelines import prove_branch, timeline_at
from pipeline.repository.sets import BackupSet
from pipeline.runbooks.plan import Plan

Connect = Callable[[], psycopg.Connection[Any]]


def order_of(config: PipelineConfig, plan: Plan, view: Path) -> ReplayOrder:
    """Show the archive of the plan's timeline in the folder `view`, and order what to replay."""
    shutil.rmtree(view, ignore_errors=True)
    view.mkdir()
    return ReplayOrder(
        restore_command=archiving.get_command(config, view),
        spans=merged_wal(config.repository.path, view, plan.timeline).spans,
        timeline=plan.ends_on,
        target=Target.parse(plan.replay),
        stop=Lsn.parse(plan.stop) if plan.stop else None,
    )


@contextmanager
def replayed(
    server: LocalServer,
    order: ReplayOrder,
    postgres: PostgresConfig,
    progress: Callable[[Lsn], None],
    settings: Mapping[str, str] | None = None,
) -> Iterator[tuple[Replayed, Connect]]:
    """Replay in private up to the target; the server stands there, proven and not promoted."""
    for name in SIGNALS:  # of an earlier replay in this folder, with another target
        (server.data / name).unlink(missing_ok=True)
    signal = server.data / signal_file(order)
    signal.touch()
    server.tools.own(signal)
    given = {
        "shared_preload_libraries": ",".join(postgres.replay_libraries),
        **(shared_buffers(server) if settings is None else settings),
        **recovery_settings(order),
    }
    while True:
        known = required(server)
        with private_server(
            server,
            user=postgres.user,
            port=postgres.port,
            dbname=postgres.dbname,
            settings=given,
        ) as connect:
            try:
                stands = replay(server, order, connect, progress)
            except SettingsTooLow:
                if required(server) == known:
                    raise
                continue  # with more, from where the server had been restarted with more
            yield stands, connect
            return


def branch_off(
    server: LocalServer,
    order: ReplayOrder,
    stood: Replayed,
    connection: psycopg.Connection[Any],
) -> int:
    """Promote where replay stands, and prove that the new timeline begins there; its number."""
    timeline = promote(connection, order.target, timedelta(minutes=5))
    prove_branch(server.data, timeline, order.timeline, stood.lsn)
    return timeline


def as_digested(
    server: LocalServer,
    order: ReplayOrder,
    postgres: PostgresConfig,
    backup: BackupSet,
    settings: Mapping[str, str] | None = None,
) -> list[tuple[str, str | None]]:
    """Replay an order that leads to a backup's digests: each table, and what is wrong with it.

    The server stands there as a standby and is not promoted: reading needs no more.

    Raises RestoreError where it is led elsewhere: rows of there say nothing of the set.
    """
    digests = RowDigests.of(backup.manifest.facts)
    why = "it has none" if digests is None else _branched(digests, backup, order)
    if digests is None or why:
        raise RestoreError(f"{backup.label} cannot be held against its digests: {why}")
    there = postgres.model_copy(update={"dbname": digests.database})
    with (
        replayed(server, order, there, lambda _: None, settings) as (_, connect),
        connect() as connection,
    ):
        return list(digests.compared(connection))


def _branched(digests: RowDigests, backup: BackupSet, order: ReplayOrder) -> str | None:
    """Tell that replay leaves the backup's timeline before it comes to the digests, or None."""
    own = int(backup.manifest.facts["timeline"])
    found = timeline_at(order.spans, Lsn(Lsn.parse(digests.lsn) - 1))
    if found == own:
        return None
    return f"they are of {digests.lsn} on timeline {own}; replay comes there on timeline {found}"


def compare_digests(
    server: LocalServer,
    order: ReplayOrder,
    postgres: PostgresConfig,
    backup: BackupSet,
    stop: Lsn,
) -> dict[str, Any]:
    """Replay to where digests were taken, before `stop`, and hold every table against them.

    Answers what was examined, and says so where that was nothing: the WAL that leads to a target
    before that LSN, or on another branch, does not lead to it.

    Raises RestoreError naming every table that is not as it was.
    """
    digests = RowDigests.of(backup.manifest.facts)
    if digests is None:
        why: str | None = "it has none"
    elif Lsn.parse(digests.lsn) >= stop:
        why = f"they are of {digests.lsn}, replay ends at {stop}"
    else:
        why = _branched(digests, backup, order)
    if digests is None or why:
        return {"told": f"NOT compared with digests: {why}", "not_examined": [f"rows: {why}"]}
    early = replace(order, target=digests.target, stop=Lsn.parse(digests.lsn))
    tables = as_digested(server, early, postgres, backup)
    if wrong := [f"{name}: {problem}" for name, problem in tables if problem]:
        raise RestoreError(f"replayed to {digests.lsn}, other rows than then: {'; '.join(wrong)}")
    told = f"{len(tables)} tables are as they were digested at {digests.lsn}"
    if left_out := list(digests.left_out):
        told += f"; NOT compared, for want of digests: {', '.join(left_out)}"
    return {"told": told, "tables": len(tables), "rows": digests.rows, "not_examined": left_out}
