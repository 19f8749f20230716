"""`pipeline restore table`: rows of a moment, into the live database."""

from functools import partial
from inspect import cleandoc
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
    repository,
    say,
)
from pipeline.errors import ConfigError
from pipeline.postgres.logical.logical import KIND
from pipeline.postgres.replay.targets import SPELLINGS, Target
from pipeline.postgres.server.control import origin_of_server
from pipeline.postgres.table.staging import PREFIX
from pipeline.repository.journal import Journal
from pipeline.repository.kinds import LATEST, chosen
from pipeline.runbooks.plan import passed_over
from pipeline.runbooks.table import TableRecovery, new_restore


def restore_table(
    *,
    config: Config = DEFAULT,
    table: Annotated[
        list[str] | None,
        typer.Option(
            help="as SQL spells it, or its plain name; with its partitions; again for each"
        ),
    ] = None,
    to: Annotated[str | None, typer.Option(help="the moment, see below")] = None,
    label: Annotated[
        str | None,
        typer.Option(
            "--from", help="a logical backup of the whole database, or latest, instead of a moment"
        ),
    ] = None,
    accept_end: AcceptEnd = None,
    without: Without = None,
    topics: Annotated[
        bool, typer.Option("--topics/--no-topics", help="compare topics with tables at last")
    ] = True,
    without_topic: WithoutTopic = None,
    plan: Annotated[bool, typer.Option("--plan", help="only say what would be done")] = False,
    resume: Annotated[str | None, typer.Option(help="name of an interrupted restore")] = None,
) -> None:
    """Bring tables back to a moment; all other tables stay open, and are not changed.

    The newest base backup is replayed on a server of its own, in the scratch folder. A table that
    was dropped is made again. In one that is there, rows are deleted, updated and inserted until
    they are those of the target: what was written to it since is lost, by your decision. Consumers
    of changes see just these changes. Nothing is changed unless the result is proven first.
    """
    loaded = configuration.load(config)
    if resume is not None:
        given = {"--table": table, "--to": to, "--from": label, "--without": without}
        refuse_said_again(given | {"--plan": plan})
    if without and label is not None:
        raise ConfigError("--without: goes with --to only, where a base backup is chosen anew")
    journal = new_restore(loaded)
    if resume is not None:
        journal = Journal.named(loaded.repository.path, TableRecovery.kind, resume)
        if finished(journal, TableRecovery.last):
            return
        table, to, label = _asked(journal)
    elif label is not None:
        source = partial(origin_of_server, loaded.postgres)
        label = chosen(
            repository(loaded), KIND, label, origin=source if label == LATEST else dict, say=say
        ).label
    recovery = TableRecovery(
        loaded,
        Target.parse(to) if to else None,
        table or (),
        journal,
        accept_end=accepted_end(accept_end),
        without=passed_over(loaded, without),
        topics=topics,
        without_topics=without_topic or (),
        progress=say,
        label=label,
    )
    if plan:
        for line in recovery.lines():
            say(line)
        refuse_as_things_stand(recovery)
        return
    flags = "" if topics else " --no-topics"
    with resumable(
        journal,
        "plan",
        f"to go on: pipeline restore table --resume {journal.recovery}{flags}",
        f"staged rows may be left in schemas {PREFIX}*; the next restore sweeps them",
    ):
        recovery.run()


def _asked(journal: Journal) -> tuple[list[str], str | None, str | None]:
    done = journal.done()
    if "plan" not in done:
        raise ConfigError(f"{journal.recovery} was refused before it began: start a new restore")
    plan = done["plan"]
    return list(plan["tables"]), plan.get("target"), plan.get("label")


restore_table.__doc__ = f"{cleandoc(restore_table.__doc__ or '')}\n\n\b\nMoments:\n{SPELLINGS}"
