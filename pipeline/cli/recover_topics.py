"""`pipeline recover topics`: topics and the offsets of groups back, and CDC with them."""

from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cli.resumable import refuse_as_things_stand, refuse_said_again, resumable
from pipeline.cli.shared import DEFAULT, Config, Origin, WithoutTopic, repository, say
from pipeline.errors import ConfigError
from pipeline.kafka.archive import archive
from pipeline.kafka.cluster.topics import cluster_id
from pipeline.kafka.groups import groups
from pipeline.repository.journal import Journal
from pipeline.repository.kinds import chosen
from pipeline.runbooks.topic_asked import Asked, Way
from pipeline.runbooks.topic_loss import TopicRecovery, new_recovery


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
    offsets: Annotated[
        str | None, typer.Option(help="label of the groups' backup; else the newest")
    ] = None,
    origin: Origin = None,
    lose: Annotated[
        list[str] | None,
        typer.Option(help="a topic that cannot be read or kept whole: what is not archived may go"),
    ] = None,
    replication: Annotated[int | None, typer.Option(help="replicas, unless as archived")] = None,
    without_setting: Annotated[
        list[str] | None, typer.Option(help="an archived override that is not brought back")
    ] = None,
    without_topic: WithoutTopic = None,
    instead_of: Annotated[
        str | None, typer.Option(help="an unfinished recovery that nobody will go on with")
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
    sets = repository(loaded)
    for kind, label in ((archive.KIND, archived), (groups.KIND, offsets)):
        if label is not None:  # told before brokers are asked
            chosen(sets, kind, label)
    asked = Asked(
        topics=topic or [],
        way=way or Way.JOINED,
        archive=archived,
        offsets=offsets,
        origin=origin,
        lose=lose or [],
        replication=replication,
        without_settings=without_setting or [],
        without_topics=without_topic or [],
        instead_of=instead_of,
    )
    journal = new_recovery(loaded)
    if resume is not None:
        refuse_said_again(
            {
                "--topic": topic,
                "--way": way,
                "--from": archived,
                "--offsets": offsets,
                "--origin": origin,
                "--instead-of": instead_of,
                "--plan": plan,
            }
        )
    if plan:
        _tell(TopicRecovery(loaded, asked, journal, cluster_id(loaded.kafka), progress=say))
        return
    if resume is not None:
        journal = Journal.named(loaded.repository.path, TopicRecovery.kind, resume)
        if TopicRecovery.first not in journal.done():
            raise ConfigError(f"{resume} was refused before it began: start a new recovery")
    typed = identity or typer.prompt("Id of the cluster whose topics will be replaced")
    recovery = TopicRecovery(loaded, asked, journal, typed, progress=say)
    again = f"pipeline recover topics --resume {journal.recovery} --identity {typed}"
    with resumable(journal, TopicRecovery.first, f"to go on: {again}"):
        recovery.run()
    say("next: pipeline backup offsets; pipeline backup topics")


def _tell(recovery: TopicRecovery) -> None:
    """Say how far the loss reaches, and what stands in the way of a recovery."""
    for line in recovery.plan():
        say(line)
    refuse_as_things_stand(recovery)
