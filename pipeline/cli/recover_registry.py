"""`pipeline recover registry` and `restore schemas`: every id stands for its schema again."""

import shlex
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cdc import schemas
from pipeline.cli.resumable import refuse_as_things_stand, resumable
from pipeline.cli.shared import DEFAULT, Config, Origin, repository, say
from pipeline.errors import ConfigError, ServerError
from pipeline.kafka.cluster.topics import cluster_id
from pipeline.repository.journal import Journal
from pipeline.repository.kinds import chosen
from pipeline.runbooks.registry_asked import Asked, Way
from pipeline.runbooks.registry_loss import RegistryRecovery, new_recovery

WayOption = Annotated[
    Way | None,
    typer.Option(
        help="storage: its topic, while it is stopped; export: Apicurio's own import; ids: each "
        "schema under its id, by mode IMPORT",
        show_default=Way.EXPORT,
    ),
]
From = Annotated[str | None, typer.Option("--from", help="label of the set; else the newest")]
Merge = Annotated[
    bool, typer.Option("--merge", help="add to what it holds, where nothing contradicts")
]
Restart = Annotated[
    str | None,
    typer.Option(help="starts the registry cold, stopping it first; else you are asked to"),
]
InsteadOf = Annotated[
    str | None, typer.Option(help="an unfinished recovery that nobody will go on with")
]
PlanOnly = Annotated[bool, typer.Option("--plan", help="only say what differs")]
Identity = Annotated[
    str | None, typer.Option(help="id of the cluster that the registry is of; asked otherwise")
]
Resume = Annotated[
    str | None, typer.Option(help="name of an interrupted recovery, instead of all else")
]


def recover_registry(
    *,
    config: Config = DEFAULT,
    way: WayOption = None,
    backup: From = None,
    origin: Origin = None,
    merge: Merge = False,
    restart_command: Restart = None,
    without_cdc: Annotated[
        bool, typer.Option("--without-cdc", help="leave the connectors alone")
    ] = False,
    instead_of: InsteadOf = None,
    plan: PlanOnly = False,
    identity: Identity = None,
    resume: Resume = None,
) -> None:
    """Recover the schema registry with every id it had, connectors stopped, and prove it.

    Nothing is written where something contradicts the backup: one id of two schemas, or one schema
    under two ids. What is read back comes from a process that started after it.
    """
    asked = Asked(way or Way.EXPORT, backup, origin, merge, not without_cdc, instead_of)
    _run(config, asked, "recover registry", restart_command, plan, identity, resume)


def restore_schemas(
    *,
    config: Config = DEFAULT,
    way: WayOption = None,
    backup: From = None,
    origin: Origin = None,
    merge: Merge = False,
    restart_command: Restart = None,
    instead_of: InsteadOf = None,
    plan: PlanOnly = False,
    identity: Identity = None,
    resume: Resume = None,
) -> None:
    """Bring the schemas of a backup into a registry with their ids, and prove it.

    As `pipeline recover registry`, for a registry that nobody writes to yet: no connector is
    touched.
    """
    asked = Asked(way or Way.EXPORT, backup, origin, merge, cdc=False, instead_of=instead_of)
    _run(config, asked, "restore schemas", restart_command, plan, identity, resume)


def _run(  # noqa: PLR0917 - options of both commands
    config: Path,
    asked: Asked,
    command: str,
    restart: str | None,
    plan: bool,  # noqa: FBT001
    identity: str | None,
    resume: str | None,
) -> None:
    loaded = configuration.load(config)
    if asked.backup is not None:  # told before anybody is asked
        chosen(repository(loaded), schemas.KIND, asked.backup)
    journal = new_recovery(loaded)
    if plan:
        runbook = RegistryRecovery(loaded, asked, journal, cluster_id(loaded.kafka), progress=say)
        for line in runbook.plan():
            say(line)
        refuse_as_things_stand(runbook)
        return
    if resume is not None:
        journal = Journal.named(loaded.repository.path, RegistryRecovery.kind, resume)
        if RegistryRecovery.first not in journal.done():
            raise ConfigError(f"{resume} was refused before it began: start a new recovery")
    typed = identity or typer.prompt("Id of the cluster that the registry is of")
    recovery = RegistryRecovery(loaded, asked, journal, typed, _command(restart), progress=say)
    again = f"pipeline {command} --resume {journal.recovery} --identity {typed}"
    with resumable(journal, RegistryRecovery.first, f"to go on: {again}"):
        recovery.run()
    say("next: pipeline backup schemas")


def _command(text: str | None) -> Callable[[], None] | None:
    return partial(_call, shlex.split(text)) if text else None


def _call(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        told = (done.stderr or done.stdout).strip()[-500:]
        raise ServerError(f"{shlex.join(words)} ended with {done.returncode}: {told}")
