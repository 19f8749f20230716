"""`pipeline recover postgres`: the runbook of scenario 1 at the terminal."""

from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cli.resumable import (
    finished,
    refuse_as_things_stand,
    refuse_said_again,
    resumable,
)
from pipeline.cli.shared import (
    DEFAULT,
    AcceptEnd,
    Config,
    Without,
    WithoutTopic,
    accepted_end,
    reread_noted,
    say,
)
from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError
from pipeline.postgres.replay.targets import SPELLINGS, Target
from pipeline.repository.journal import Journal
from pipeline.runbooks import parts
from pipeline.runbooks.opened import decided
from pipeline.runbooks.plan import make, passed_over
from pipeline.runbooks.point_in_time import PointInTimeRecovery, new_recovery


def recover_postgres(
    *,
    config: Config = DEFAULT,
    to: Annotated[
        str | None, typer.Option(help="the recovery target, see below", show_default="latest")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="only say what would be done")] = False,
    accept_end: AcceptEnd = None,
    without: Without = None,
    identity: Annotated[
        str | None, typer.Option(help="system identifier of what is replaced; asked otherwise")
    ] = None,
    resume: Annotated[str | None, typer.Option(help="name of an interrupted recovery")] = None,
    structure: Annotated[
        bool | None,
        typer.Option("--amcheck/--no-amcheck", help="read every table and index before opening"),
    ] = None,
    digests: Annotated[
        bool | None,
        typer.Option(
            "--digests/--no-digests",
            help="stop replay where the backup's digests were taken, if it has any, and compare",
        ),
    ] = None,
    cdc: Annotated[
        bool | None,
        typer.Option(
            "--cdc/--without-cdc",
            help="leave connectors and topics alone now; --resume brings CDC back later",
        ),
    ] = None,
    prepared: Annotated[
        str | None,
        typer.Option(help="commit or rollback: how prepared transactions at the target end"),
    ] = None,
    without_topic: WithoutTopic = None,
    without_slot: Annotated[
        list[str] | None,
        typer.Option(help="leave this slot, or standby, behind; again for each"),
    ] = None,
) -> None:
    """Recover the database to a target, and CDC with it; clients get in last."""
    loaded = configuration.load(config)
    target = Target.parse(to or "latest")
    accepted = accepted_end(accept_end)
    if resume is not None:
        refuse_said_again({"--to": to, "--without": without})
    left_out, shown = passed_over(loaded, without), None
    if plan or resume is None:
        shown = make(loaded, target, accept_end=accepted, without=left_out)
        for line in shown.lines():
            say(line)
    journal = new_recovery(loaded)
    if resume is not None:
        journal = Journal.named(loaded.repository.path, PointInTimeRecovery.kind, resume)
        target = _target_of(journal)
        if not _left_to_do(journal) and finished(journal, PointInTimeRecovery.last):
            return
    typed = identity or ""
    if not plan and identity is None:
        typed = typer.prompt("System identifier of the server that will be replaced")
    recovery = PointInTimeRecovery(
        loaded,
        target,
        journal,
        typed,
        accept_end=accepted,
        without=left_out,
        structure=structure,
        digests=digests,
        cdc=cdc,
        prepared=decided(prepared),
        without_topics=without_topic or (),
        without_slots=without_slot or (),
        shown=shown,
        progress=say,
    )
    if plan:
        _tell_what_is_down(loaded, cdc=cdc)
        refuse_as_things_stand(recovery)
        return
    told = f"pipeline recover postgres --resume {journal.recovery} --identity {typed}"
    with resumable(journal, PointInTimeRecovery.first, f"to go on: {told}"):
        recovery.run()
    if _left_to_do(journal):
        say(f"left to do: {told}")
    for one in journal.done()[PointInTimeRecovery.first].get("left_behind", ()):
        say(f"NOT brought back: {one}")
    again = journal.done().get("reconnect", {}).get("connectors", ())
    say("next: pipeline backup base" + (f"; {reread_noted(again)}" if again else ""))


def _tell_what_is_down(config: PipelineConfig, *, cdc: bool | None) -> None:
    if cdc is not False:
        for line in parts.lines(parts.down(config)):
            say(line)


def _left_to_do(journal: Journal) -> bool:
    """Whether CDC was left out."""
    return "left_out" in journal.done().get("reconnect", {})


def _target_of(journal: Journal) -> Target:
    done = journal.done()
    if "check_identity" not in done:
        raise ConfigError(f"{journal.recovery} was refused before it began: start a new recovery")
    return Target.parse(done["check_identity"]["target"])


recover_postgres.__doc__ = f"{recover_postgres.__doc__}\n\n\b\nTargets:\n{SPELLINGS}"
