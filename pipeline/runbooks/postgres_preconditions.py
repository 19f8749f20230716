"""What must hold before a point-in-time recovery stops or moves anything."""

import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

from pipeline.cdc.debezium import none_reads
from pipeline.config import PipelineConfig
from pipeline.errors import BackupError
from pipeline.kafka.cluster.topics import cluster_id
from pipeline.postgres.base import base_backup
from pipeline.postgres.replication import readers
from pipeline.postgres.replication.publications import find_publication
from pipeline.postgres.server import session
from pipeline.postgres.server.control import identifier_of
from pipeline.postgres.server.tools import Tools
from pipeline.registry.client import RegistryClient
from pipeline.repository.kinds import newest
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks import parts
from pipeline.runbooks.parts import Part
from pipeline.runbooks.plan import Plan
from pipeline.runbooks.runbook import Precondition

_LATER = "Mend it; or recover without CDC now, and bring CDC back by --resume later"
_KEPT_OUT = re.compile("authentication failed|no password supplied|no pg_hba.conf entry")
_WAIVER = "--without-cdc"


def listed(
    config: PipelineConfig, plan: Plan, *, cdc: bool, without_slots: Collection[str] = ()
) -> Sequence[Precondition]:
    """List them in the order in which their steps come."""
    return (
        Precondition(
            "readers",
            lambda: map(str, left_behind(config, plan, without_slots)),
            "It will not be there on the recovered server, and whoever reads by it begins anew",
            "--without-slot with its name",
        ),
        Precondition(
            "login",
            lambda: _login(config),
            "The recovered server will let in postgres.user by the same rules: mend its password, "
            "or the rules; where only this server refuses it, stop this one first",
        ),
        Precondition(
            "programs",
            lambda: _programs(config, plan),
            "Set postgres.bin to the programs of that version",
        ),
        Precondition("room", lambda: _room(config, plan), "Make room"),
        Precondition(
            "publication",
            lambda: _publication(config, plan),
            "By another name no table would be compared with its topic: mend cdc.publication",
        ),
        *(_of_cdc(config) if cdc else ()),
    )


def left_behind(
    config: PipelineConfig, plan: Plan, without: Collection[str] = ()
) -> list[readers.Reader]:
    """Who reads the server, is none of ours, and is not named in `without`.

    The server itself is asked, and where it does not answer the newest base backup.
    """
    ours = config.cdc.slot, config.repository.receiver_slot, config.cdc.catalogue_guard
    own = {*ours, *without}
    return readers.others(_readers(config, plan), own)


def _readers(config: PipelineConfig, plan: Plan) -> list[readers.Reader]:
    with suppress(psycopg.Error), session.connect(config.postgres) as live:
        if identifier_of(live) == plan.system_identifier:
            return readers.readers(live)
    backups = Repository(FolderStore(config.repository.path))
    known = backups.get(plan.backup)
    with suppress(BackupError):  # of a newer one that is passed over nobody knows what it holds
        origin = {"system_identifier": plan.system_identifier}
        known = newest(backups, base_backup.KIND, origin=lambda: origin)
    return readers.of_facts(known.manifest.facts)


def _facts(config: PipelineConfig, plan: Plan) -> Mapping[str, Any]:
    """What the base backup that will be restored knows of its server."""
    return Repository(FolderStore(config.repository.path)).get(plan.backup).manifest.facts


def _login(config: PipelineConfig) -> Iterator[str]:
    """A server that answers lets the account in by which all is asked, also once it is restored."""
    try:
        session.connect(config.postgres).close()
    except psycopg.OperationalError as error:
        if _KEPT_OUT.search(str(error)):  # whatever else is wrong with it may be why it is replaced
            yield str(error).strip()


def _programs(config: PipelineConfig, plan: Plan) -> Iterator[str]:
    """The restored server is started by programs of its own major version."""
    facts = _facts(config, plan)
    told = Tools.of(config.postgres).run("postgres", "--version")
    found = int(told.split()[2].partition(".")[0].rstrip("abcdefghijklmnopqrstuvwxyz"))
    if found != (expected := int(facts["server_version_num"]) // 10000):
        yield f"postgres.bin has {told.strip()}, {plan.backup} is of version {expected}"


def _room(config: PipelineConfig, plan: Plan) -> Iterator[str]:
    """The damaged folder stays, under another name, so the base backup needs room beside it."""
    facts = _facts(config, plan)
    if config.postgres.data is None or "database_bytes" not in facts:
        return
    place = _existing(config.postgres.data)
    free, needed = shutil.disk_usage(place).free, int(facts["database_bytes"])
    if free < needed:
        yield f"{place}: expected {needed:,} bytes free for {plan.backup}, found {free:,}"


def _publication(config: PipelineConfig, plan: Plan) -> Iterator[str]:
    """The one that is brought back is the one by which tables are compared with their topics."""
    facts = _facts(config, plan)
    known, expected = facts.get("publication"), config.cdc.publication
    if known is None or known["name"] == expected:
        return
    with suppress(psycopg.Error), session.connect(config.postgres) as live:
        if find_publication(live, expected) is not None:
            return  # it was renamed, or made anew, since the backup
    yield f"cdc.publication is {expected!r}, {plan.backup} has {known['name']!r}"


def _existing(path: Path) -> Path:
    return next(one for one in (path.parent, *path.parents) if one.exists())


def _of_cdc(config: PipelineConfig) -> Iterator[Precondition]:
    """What answers must answer rightly; a part that is down is left for its own step."""
    down = parts.down(config)

    def kafka() -> Iterator[str]:
        cluster_id(config.kafka)
        yield from ()

    def registry() -> Iterator[str]:
        with RegistryClient(config.registry) as client:
            client.subjects()
        yield from ()

    asked: list[tuple[Part, Callable[[], Iterator[str]], str]] = [
        (Part.CONNECT, lambda: none_reads(config), _LATER),
        (Part.KAFKA, kafka, _LATER),
    ]
    if config.registry.url:
        none = "; or set registry.url to '' where there is none"
        asked.append((Part.REGISTRY, registry, _LATER + none))
    for part, ask, advice in asked:
        yield Precondition(part, ask if part not in down else tuple, advice, _WAIVER)
