"""`pipeline recover postgres`: the runbook of scenario 1 at the terminal."""

from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cli.shared import DEFAULT, Config, say
from pipeline.errors import ConfigError
from pipeline.postgres.lsn import Lsn
from pipeline.postgres.targets import SPELLINGS, Target
from pipeline.recovery.journal import Journal
from pipeline.recovery.plan import make
from pipeline.recovery.point_in_time import PointInTimeRecovery, new_recovery


def recover_postgres(
    *,
    config: Config = DEFAULT,
    to: Annotated[str, typer.Option(help="the recovery target, see below")] = "latest",
    plan: Annotated[bool, typer.Option("--plan", help="only say what would be done")] = False,
    accept_end: Annotated[
        str | None, typer.Option(help="accept that it ends at this LSN, as a refusal named it")
    ] = None,
    identity: Annotated[
        str | None, typer.Option(help="system identifier of what is replaced; asked otherwise")
    ] = None,
    resume: Annotated[str | None, typer.Option(help="name of an interrupted recovery")] = None,
    structure: Annotated[
        bool,
        typer.Option("--amcheck/--no-amcheck", help="read every table and index before opening"),
    ] = True,
) -> None:
    """Recover the database to a target, and CDC with it; clients get in last."""
    loaded = configuration.load(config)
    target = Target.parse(to)
    accepted = _lsn(accept_end) if accept_end else None
    shown = make(loaded, target, accept_end=accepted) if plan or resume is None else None
    for line in shown.lines() if shown else ():
        say(line)
    if plan:
        return
    journal = new_recovery(loaded)
    if resume is not None:
        journal = Journal(journal.folder.with_name(resume))
        target = _target_of(journal)
    typed = identity or typer.prompt("System identifier of the server that will be replaced")
    recovery = PointInTimeRecovery(
        loaded,
        target,
        journal,
        typed,
        accept_end=accepted,
        structure=structure,
        shown=shown,
        progress=say,
    )
    try:
        recovery.run()
    except BaseException:
        if _began(journal):
            again = f" --accept-end {accepted}" if accepted else ""
            say(f"to go on: pipeline recover postgres --resume {journal.recovery}{again}")
        raise
    say(f"journal: {journal.path}")
    say("next: pipeline backup base")


def _began(journal: Journal) -> bool:
    """Whether the recovery was told whom it replaces: before that it has touched nothing."""
    return journal.path.exists() and "check_identity" in journal.done()


def _target_of(journal: Journal) -> Target:
    done = journal.done()
    if "check_identity" not in done:
        raise ConfigError(f"{journal.recovery} was refused before it began: start a new recovery")
    return Target.parse(done["check_identity"]["target"])


def _lsn(text: str) -> Lsn:
    try:
        return Lsn.parse(text)
    except ValueError as error:
        raise ConfigError(f"--accept-end: {error}") from error


recover_postgres.__doc__ = f"{recover_postgres.__doc__}\n\n\b\nTargets:\n{SPELLINGS}"
