"""`pipeline recover topics`: topics and the offsets of groups back, and CDC with them."""

from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cli.resumable import resumable
from pipeline.cli.shared import DEFAULT, LATEST, Config, chosen, repository, say
from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError, ObjectMissing
from pipeline.kafka import archive, groups
from pipeline.recovery.journal import Journal
from pipeline.recovery.topic_extent import missing_groups, survey
from pipeline.recovery.topic_loss import TopicRecovery, Way, begun, new_recovery


def recover_topics(
    *,
    config: Config = DEFAULT,
    topic: Annotated[
        list[str] | None, typer.Option(help="a topic that may be replaced; again for each")
    ] = None,
    way: Annotated[
        Way | None,
        typer.Option(
            help="joined: the archive, then CDC; cdc: topics of connectors by CDC alone",
            show_default=Way.JOINED,
        ),
    ] = None,
    archived: Annotated[
        str | None, typer.Option("--from", help="label of the archive; else the newest")
    ] = None,
    lose: Annotated[
        list[str] | None,
        typer.Option(help="a topic with unreadable batches: what is not archived may go"),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="only say what is harmed")] = False,
    identity: Annotated[
        str | None,
        typer.Option(help="id of the cluster whose topics are replaced; asked otherwise"),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(help="name of an interrupted recovery, instead of all else")
    ] = None,
) -> None:
    """Recover topics that are gone or damaged, and the offsets of groups; without --topic offsets.

    Nothing is touched until the archive was proven. Consumers of these topics and whoever produces
    to them must be stopped. What a damaged topic still holds is archived before it is made again.
    """
    loaded = configuration.load(config)
    if plan:
        _tell(loaded, archived, topic or [])
        return
    journal, topics = new_recovery(loaded), topic or []
    if resume is not None:
        if topic or way or archived:
            raise ConfigError("--resume knows topics, way and archive from its journal: leave them")
        journal = Journal(journal.folder.with_name(resume))
        topics, way = begun(journal)
    elif archived is not None:
        archived = chosen(repository(loaded), archive.KIND, archived).label
    typed = identity or typer.prompt("Id of the cluster whose topics will be replaced")
    recovery = TopicRecovery(
        loaded, topics, journal, typed, way=way or Way.JOINED, label=archived, progress=say
    )
    recovery.lose = lose or ()
    again = f"to go on: pipeline recover topics --resume {journal.recovery}"
    with resumable(journal, "find_extent", again):
        recovery.run()
    say("next: pipeline backup offsets; pipeline backup topics")


def _tell(loaded: PipelineConfig, label: str | None, topics: list[str]) -> None:
    """Say how far the loss reaches."""
    kept = repository(loaded)
    backup = chosen(kept, archive.KIND, label or LATEST)
    harmed = survey(loaded, backup, topics)
    for line in (line for one in harmed for line in one.lines()):
        say(line)
    try:
        lost = missing_groups(loaded, kept.latest(groups.KIND))
    except ObjectMissing:
        lost = []
        say("no backup of offsets: whether groups lost any cannot be told")
    for line in lost:
        say(f"group {line}")
    say(f"{len(harmed)} topics and {len(lost)} groups are harmed, by {backup.label}")
