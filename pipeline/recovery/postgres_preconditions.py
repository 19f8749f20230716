"""What must hold before a point-in-time recovery stops or moves anything."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.debezium import own_connectors
from pipeline.config import PipelineConfig
from pipeline.kafka.topics import cluster_id
from pipeline.postgres.tools import Tools
from pipeline.recovery.plan import Plan
from pipeline.recovery.runbook import Precondition
from pipeline.registry.client import RegistryClient
from pipeline.repository import Repository
from pipeline.store import FolderStore

_LATER = "Start it; or recover without CDC now, and bring CDC back by --resume later"
_WAIVER = "--without-cdc"


def listed(config: PipelineConfig, plan: Plan, *, cdc: bool) -> Sequence[Precondition]:
    """List them in the order in which their steps come."""
    return (
        Precondition(
            "programs",
            lambda: _programs(config, plan),
            "Set postgres.bin to the programs of that version",
        ),
        Precondition("room", lambda: _room(config, plan), "Make room"),
        *(_of_cdc(config) if cdc else ()),
    )


def _programs(config: PipelineConfig, plan: Plan) -> Iterator[str]:
    """The restored server is started by programs of its own major version."""
    facts = Repository(FolderStore(config.repository.path)).get(plan.backup).manifest.facts
    told = Tools.of(config.postgres).run("postgres", "--version")
    found = int(told.split()[2].partition(".")[0].rstrip("abcdefghijklmnopqrstuvwxyz"))
    if found != (expected := int(facts["server_version_num"]) // 10000):
        yield f"postgres.bin has {told.strip()}, {plan.backup} is of version {expected}"


def _room(config: PipelineConfig, plan: Plan) -> Iterator[str]:
    """The damaged folder stays, under another name, so the base backup needs room beside it."""
    facts = Repository(FolderStore(config.repository.path)).get(plan.backup).manifest.facts
    if config.postgres.data is None or "database_bytes" not in facts:
        return
    place = _existing(config.postgres.data)
    free, needed = shutil.disk_usage(place).free, int(facts["database_bytes"])
    if free < needed:
        yield f"{place}: expected {needed:,} bytes free for {plan.backup}, found {free:,}"


def _existing(path: Path) -> Path:
    return next(one for one in (path.parent, *path.parents) if one.exists())


def _of_cdc(config: PipelineConfig) -> Iterator[Precondition]:
    def connectors() -> Iterator[str]:
        with ConnectClient(config.connect) as connect:
            if not own_connectors(config, connect):
                yield (
                    f"no connector at {connect.url} has slot {config.cdc.slot!r} in database "
                    f"{config.postgres.dbname!r}"
                )

    def kafka() -> Iterator[str]:
        cluster_id(config.kafka)
        yield from ()

    def registry() -> Iterator[str]:
        with RegistryClient(config.registry) as client:
            client.subjects()
        yield from ()

    asked: list[tuple[str, Callable[[], Iterator[str]]]] = [
        ("connectors", connectors),
        ("kafka", kafka),
        ("registry", registry),
    ]
    for name, ask in asked:
        yield Precondition(name, ask, _LATER, _WAIVER)
