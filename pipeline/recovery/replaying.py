"""A plan carried out on a server of its own: the archive as one folder, replay, the target proven.

Of a recovery that takes the server's place, and of one that only reads rows beside it.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from pipeline.config import PipelineConfig, PostgresConfig
from pipeline.postgres import archiving
from pipeline.postgres.lsn import Lsn
from pipeline.postgres.replay import (
    Replayed,
    ReplayOrder,
    private_server,
    recovery_settings,
    replay,
    signal_file,
)
from pipeline.postgres.segments import merged_wal
from pipeline.postgres.server import LocalServer
from pipeline.postgres.targets import Target
from pipeline.recovery.plan import Plan

Connect = Callable[[], psycopg.Connection[Any]]


def order_of(config: PipelineConfig, plan: Plan, view: Path) -> ReplayOrder:
    """Show the archive of the plan's timeline in the folder `view`, and order what to replay."""
    shutil.rmtree(view, ignore_errors=True)
    view.mkdir()
    merged_wal(config.repository.path, view, plan.timeline)
    return ReplayOrder(
        restore_command=archiving.get_command(config, view),
        timeline=plan.timeline,
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
        yield replay(server, order, connect, progress), connect
