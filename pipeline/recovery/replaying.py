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
from pipeline.postgres import archiving
from pipeline.postgres.lsn import Lsn
from pipeline.postgres.prefetch import prefetched
from pipeline.postgres.replay import (
    SIGNALS,
    Replayed,
    ReplayOrder,
    private_server,
    promote,
    recovery_settings,
    replay,
    signal_file,
)
from pipeline.postgres.row_digests import RowDigests
from pipeline.postgres.segments import merged_wal
from pipeline.postgres.server import LocalServer
from pipeline.postgres.targets import Target
from pipeline.postgres.timelines import prove_branch, timeline_at
from pipeline.recovery.plan import Plan
from pipeline.repository import Repository
from pipeline.store import FolderStore

Connect = Callable[[], psycopg.Connection[Any]]


def order_of(config: PipelineConfig, plan: Plan, view: Path) -> ReplayOrder:
    """Show the archive of the plan's timeline in the folder `view`, and order what to replay."""
    shutil.rmtree(view, ignore_errors=True)
    view.mkdir()
    backup = Repository(FolderStore(config.repository.path)).get(plan.backup)
    return ReplayOrder(
        restore_command=archiving.get_command(config, view),
        wal=merged_wal(config.repository.path, view, plan.timeline),
        start=Lsn.parse(backup.manifest.facts["start_lsn"]),
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
    with private_server(
        server,
        user=postgres.user,
        port=postgres.port,
        dbname=postgres.dbname,
        settings={**(settings or {}), **recovery_settings(order)},
    ) as connect:
        with prefetched(order.wal, order.start, server.data / "pg_wal", server.tools) as ahead_of:

            def reached(lsn: Lsn) -> None:
                ahead_of(lsn)
                progress(lsn)

            stands = replay(server, order, connect, reached)
        yield stands, connect


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


def _elsewhere(digests: RowDigests | None, order: ReplayOrder, stop: Lsn) -> str | None:
    """Tell why replay does not come where the digests were taken, or None."""
    if digests is None:
        return "it has none"
    lsn = Lsn.parse(digests.lsn)
    if lsn >= stop:
        return f"they are of {lsn}, replay ends at {stop}"
    own, found = (timeline_at(order.wal.spans, at) for at in (order.start, Lsn(lsn - 1)))
    return None if own == found else f"they are of {lsn} on timeline {own}, replay leaves it before"


def compare_digests(
    server: LocalServer,
    order: ReplayOrder,
    postgres: PostgresConfig,
    digests: RowDigests | None,
    stop: Lsn,
) -> dict[str, Any]:
    """Replay to where digests were taken, before `stop`, and hold every table against them.

    Answers what was examined, and says so where that was nothing: the WAL that leads to a target
    before that LSN, or on another branch, does not lead to it.

    Raises RestoreError naming every table that is not as it was.
    """
    why = _elsewhere(digests, order, stop)
    if digests is None or why:
        return {"told": f"NOT compared with digests: {why}", "not_examined": [f"rows: {why}"]}
    early = replace(order, target=digests.target, stop=Lsn.parse(digests.lsn))
    there = postgres.model_copy(update={"dbname": digests.database})
    with replayed(server, early, there, lambda _: None) as (_, connect), connect() as connection:
        wrong = [f"{name}: {why}" for name, why in digests.compared(connection) if why]
    if wrong:
        raise RestoreError(f"replayed to {digests.lsn}, other rows than then: {'; '.join(wrong)}")
    told = f"{len(digests.tables)} tables are as they were digested at {digests.lsn}"
    return {"told": told, "tables": len(digests.tables), "rows": digests.rows, "not_examined": []}
