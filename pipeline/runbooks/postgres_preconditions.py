"""What must hold before a point-in-time recovery stops or moves anything."""

import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from pipeline.config import PipelineConfig
from pipeline.errors import BackupError
from pipeline.postgres.base import base_backup
from pipeline.postgres.replay.targets import Target, TargetKind
from pipeline.postgres.replication import readers
from pipeline.postgres.server import session
from pipeline.postgres.server.control import identifier_of, passed_on
from pipeline.postgres.server.prepared import prepared_transactions
from pipeline.postgres.server.server import LocalServer, not_refused, private_socket
from pipeline.postgres.server.tools import Tools
from pipeline.postgres.wal import archiving, wal_command
from pipeline.repository.kinds import newest
from pipeline.repository.sets import Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks import reconnect_preconditions
from pipeline.runbooks.plan import Plan
from pipeline.runbooks.runbook import Precondition
from pipeline.runbooks.salvage import room_for

_KEPT_OUT = re.compile("authentication failed|no password supplied|no pg_hba.conf entry")


def listed(
    config: PipelineConfig,
    plan: Plan,
    *,
    cdc: bool,
    without_slots: Collection[str] = (),
    without_topics: Collection[str] = (),
    prepared: str | None = None,
) -> Sequence[Precondition]:
    """List them in the order in which their steps come."""
    facts = partial(_facts, config, plan)
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
            "address",
            lambda: _address(config, plan),
            "Nobody may answer there once the server is stopped: set postgres.data to its folder, "
            "postgres.host and postgres.port to where it listens itself",
        ),
        Precondition(
            "programs",
            lambda: _programs(config, plan),
            "Set postgres.bin to the programs of that version",
        ),
        Precondition("room", lambda: _room(config, plan), "Make room"),
        Precondition(
            "wal-command",
            lambda: _wal_command(config),
            "Replay gets every segment by it: set repository.wal_command to what the server's "
            "owner can run",
        ),
        Precondition(
            "prepared",
            lambda: _prepared(config, plan, prepared),
            "It would stand open at the target, and hold its locks: end it, or ask whoever "
            "coordinates it how it ended",
            "--prepared commit, or --prepared rollback",
        ),
        Precondition(
            "publication",
            lambda: reconnect_preconditions.publication(config, facts(), plan.backup),
            "By another name no table would be compared with its topic: mend cdc.publication",
        ),
        *(reconnect_preconditions.listed(config, facts, without_topics) if cdc else ()),
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
    with (
        suppress(psycopg.Error),
        session.connect_at_once(config.postgres) as live,
    ):
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


def _address(config: PipelineConfig, plan: Plan) -> Iterator[str]:
    """The server that will be stopped is the one that answers, or the fence cannot be proven."""
    postgres = config.postgres
    if postgres.data is None:
        return
    where = f"{postgres.host}:{postgres.port}"
    if LocalServer(postgres.data, Tools.of(postgres), postgres.data).pid() is None:
        if told := not_refused(postgres.host, postgres.port):
            yield f"no server runs in {postgres.data}, and {where} {told}"
        return
    with (
        suppress(psycopg.OperationalError),
        session.connect_at_once(postgres) as live,
    ):
        if (found := identifier_of(live)) != plan.system_identifier:
            yield (
                f"the server in {postgres.data} has the system identifier "
                f"{plan.system_identifier}, {where} is one with {found}"
            )
        elif passed_on(live):
            yield f"{where} passes on to the server, as a proxy or a pooler does, and would stay"


def _room(config: PipelineConfig, plan: Plan) -> Iterator[str]:
    """The damaged folder stays, and what only it holds is saved into the repository."""
    data, root, facts = config.postgres.data, config.repository.path, _facts(config, plan)
    if data is None:
        return
    needed = [
        (_existing(data), int(facts.get("database_bytes", 0)), plan.backup),
        (root, room_for(data, FolderStore(root)), "what is saved of the server"),
    ]
    for device in {place.stat().st_dev: place for place, *_ in needed}.values():
        there = [one for one in needed if one[0].stat().st_dev == device.stat().st_dev]
        free, size = shutil.disk_usage(device).free, sum(size for _, size, _ in there)
        if free < size:
            what = " and ".join(what for *_, what in there)
            yield f"{device}: expected {size:,} bytes free for {what}, found {free:,}"


def _wal_command(config: PipelineConfig) -> Iterator[str]:
    """Asked for a segment that is nowhere, it says so: any other answer would end the replay."""
    tools = Tools.of(config.postgres)
    with private_socket(tools) as nothing:
        line = archiving.get_command(config, nothing)
        words = line.replace("%f", "00000000.history").replace("%p", os.devnull)
        done = subprocess.run(
            ["/bin/sh", "-c", words],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            cwd="/",
            **tools.identity(),
        )
    if done.returncode != wal_command.ABSENT:
        told = " ".join(done.stderr.split())
        yield f"{archiving.command(config)} ended with exit code {done.returncode}: {told}"


def _prepared(config: PipelineConfig, plan: Plan, decision: str | None) -> Iterator[str]:
    """A transaction that is prepared on the server, unless it was after the target."""
    target = Target.parse(plan.target)
    if decision is not None:
        return
    with (
        suppress(psycopg.OperationalError),
        session.connect_at_once(config.postgres) as live,
    ):
        if identifier_of(live) == plan.system_identifier:
            for one in prepared_transactions(live):
                since = datetime.fromisoformat(one.since)
                if target.kind is not TargetKind.TIME or since <= target.time:
                    yield str(one)


def _existing(path: Path) -> Path:
    return next(one for one in (path.parent, *path.parents) if one.exists())
