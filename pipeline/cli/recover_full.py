"""`pipeline recover full`: everything is lost but the repository."""

from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cli.resumable import (
    finished,
    refuse_as_things_stand,
    refuse_said_again,
    resumable,
)
from pipeline.cli.shared import DEFAULT, AcceptEnd, Config, WithoutTopic, accepted_end, say
from pipeline.errors import ConfigError
from pipeline.postgres.replay.targets import SPELLINGS, Target
from pipeline.repository.journal import Journal
from pipeline.runbooks import parts
from pipeline.runbooks.full import FullRecovery, new_recovery
from pipeline.runbooks.full_sets import MAY_BE_LEFT
from pipeline.runbooks.plan import make, passed_over


def recover_full(
    *,
    config: Config = DEFAULT,
    to: Annotated[
        str | None, typer.Option(help="of the database, see below", show_default="latest")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="only say what would be done")] = False,
    accept_end: AcceptEnd = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="pass over this base, topics or offsets backup; again for each"),
    ] = None,
    identity: Annotated[
        str | None, typer.Option(help="system identifier of what is replaced; asked otherwise")
    ] = None,
    resume: Annotated[str | None, typer.Option(help="name of an interrupted recovery")] = None,
    replication: Annotated[
        int | None, typer.Option(help="replicas of the topics, unless as archived")
    ] = None,
    without_setting: Annotated[
        list[str] | None, typer.Option(help="an archived override that is not brought back")
    ] = None,
    without_topic: WithoutTopic = None,
    without_slot: Annotated[
        list[str] | None, typer.Option(help="leave this slot, or standby, behind; again for each")
    ] = None,
) -> None:
    """Recover database, topics, groups and CDC after the loss of all of them; clients get in last.

    Have new, empty brokers run, and Connect and the registry stopped: they keep their state in
    topics, which come back first. The recovery says when to start them.
    """
    loaded = configuration.load(config)
    accepted = accepted_end(accept_end)
    target, journal, shown = Target.parse(to or "latest"), new_recovery(loaded), None
    left_out = passed_over(loaded, without, MAY_BE_LEFT)
    if resume is not None:
        refuse_said_again({"--to": to, "--without": without})
        journal = Journal.named(loaded.repository.path, FullRecovery.kind, resume)
        target = _target_of(journal)
        if finished(journal, FullRecovery.last):
            return
    else:
        shown = make(loaded, target, accept_end=accepted, without=left_out)
    typed = identity or ""
    if not plan and identity is None:
        typed = typer.prompt("System identifier of the server that will be replaced")
    recovery = FullRecovery(
        loaded,
        target,
        journal,
        typed,
        accept_end=accepted,
        without=left_out,
        without_topics=without_topic or (),
        without_slots=without_slot or (),
        replication=replication,
        without_settings=without_setting or (),
        shown=shown,
        progress=say,
    )
    if shown is not None:
        _tell(recovery)
    if plan:
        refuse_as_things_stand(recovery)
        return
    told = f"pipeline recover full --resume {journal.recovery} --identity {typed}"
    with resumable(journal, FullRecovery.first, f"to go on: {told}"):
        recovery.run()
    say("next: pipeline backup all")


def _tell(recovery: FullRecovery) -> None:
    """Say all that it would do, object by object."""
    for line in recovery.shown.lines() if recovery.shown else ():
        say(line)
    for line in recovery.plan_of_topics():
        say(line)
    for line in parts.lines(parts.down(recovery.config)):
        say(line)


def _target_of(journal: Journal) -> Target:
    begun = journal.done().get(FullRecovery.first)
    if begun is None:
        raise ConfigError(f"{journal.recovery} was refused before it began: start a new recovery")
    return Target.parse(begun["target"])


recover_full.__doc__ = f"{recover_full.__doc__}\n\n\b\nTargets:\n{SPELLINGS}"
