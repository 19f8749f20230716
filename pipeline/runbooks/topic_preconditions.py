"""What must hold before a recovery of topics stops or removes anything."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from pipeline.cdc.connectors import ConnectClient
from pipeline.cdc.debezium import own_connectors, unfit
from pipeline.cdc.state import kept
from pipeline.config import PipelineConfig
from pipeline.errors import ServerError
from pipeline.kafka.replay import preflight
from pipeline.postgres.server import session
from pipeline.repository.journal import Journal
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore
from pipeline.runbooks import held_connectors, parts
from pipeline.runbooks.parts import Part
from pipeline.runbooks.reconnect import published
from pipeline.runbooks.runbook import Precondition
from pipeline.runbooks.topic_asked import Asked
from pipeline.runbooks.topic_extent import fed_by_cdc

_PREFIX = "topic.prefix"


def listed(
    config: PipelineConfig, asked: Asked, archive: BackupSet, unfinished: Iterable[Journal]
) -> Sequence[Precondition]:
    """List them in the order in which their steps come."""
    known = archive.manifest.facts["topics"]
    others = list(unfinished)

    def no_other() -> Iterator[str]:
        for journal in others:
            theirs = set(journal.done()["find_extent"]["topics"]) & set(asked.topics)
            if theirs and journal.recovery != asked.instead_of:
                yield (
                    f"{journal.recovery} removed or was about to remove {', '.join(sorted(theirs))}"
                    " and did not come to its end: pipeline recover topics --resume "
                    f"{journal.recovery}"
                )

    def replicas() -> Iterator[str]:
        for name in asked.topics:
            archived = known[name]["replication"]
            for problem in preflight.of_new(archived, asked.replication, config.kafka):
                yield f"{name}: {problem}"

    def settings() -> Iterator[str]:
        for name in asked.topics:
            overrides = known[name]["overrides"]
            for told in preflight.of_settings(config.kafka, overrides, asked.without_settings):
                yield f"{name}: {told}"

    fed = [name for name in asked.topics if fed_by_cdc(config, name)]
    left = {*fed, *asked.without_topics}
    strangers = [name for name in asked.topics if name not in left]
    return (
        Precondition(
            "prefix",
            lambda: _fed_by_another_name(config, strangers),
            "It would come back from its archive alone, without the events since: mend "
            "cdc.topic_prefix; where transforms name topics, stop the connector by hand, and read "
            "all rows again afterwards: `pipeline recover cdc --way reread`",
            waiver="--without-topic with each of them",
        ),
        Precondition(
            "no-other-recovery",
            no_other,
            "What it kept is evidence and in no archive: a new recovery would not bring it back",
            waiver="--instead-of NAME",
        ),
        Precondition("replicas", replicas, "Start more brokers, or ask for fewer replicas"),
        Precondition("settings", settings, "These brokers would refuse to make the topic"),
        *(_of_cdc(config) if fed else ()),
    )


def _of_cdc(config: PipelineConfig) -> Iterator[Precondition]:
    """What a topic that connectors feed needs besides."""

    def source() -> Iterator[str]:
        with session.connect(config.postgres, autocommit=True) as connection:
            if not published(connection, config.cdc.publication):
                yield f"publication {config.cdc.publication!r} has no table"

    yield Precondition(
        "connectors",
        lambda: unfit(config),
        "They write to these topics and must be stopped, then go on",
    )
    yield held_connectors.precondition(config, "topics")
    yield held_connectors.slot_kept(config)
    yield Precondition("source", source, "Events behind the archive come from its rows")


def _fed_by_another_name(config: PipelineConfig, topics: Sequence[str]) -> Iterator[str]:
    """Tell which topics are this pipeline's by its connectors, and not by its configuration."""
    for connector, prefix, written in _feeders(config) if topics else ():
        for topic in topics:
            if prefix and topic.startswith(f"{prefix}."):
                yield (
                    f"{topic} is fed by connector {connector!r}, whose topic.prefix is {prefix!r}, "
                    f"and cdc.topic_prefix is {config.cdc.topic_prefix!r}"
                )
            elif topic in written:
                yield f"{topic} is fed by connector {connector!r}, which gives it another name"


def _feeders(config: PipelineConfig) -> list[tuple[str, str, Collection[str]]]:
    """Give this pipeline's connectors, their prefixes, and topics that they have written to.

    Of the newest backup, where Connect is down.
    """
    if Part.CONNECT in parts.down(config):
        known = kept.earlier(Repository(FolderStore(config.repository.path)))
        own_then = [one for one in known.connectors if one.own] if known else []
        return [(one.name, one.told(_PREFIX), one.topics) for one in own_then]
    with ConnectClient(config.connect) as connect:
        own = [name for name in own_connectors(config, connect) if name in connect.names()]
        return [
            (name, connect.config(name).get(_PREFIX, ""), _written(connect, name)) for name in own
        ]


def _written(connect: ConnectClient, name: str) -> list[str]:
    try:
        return connect.topics(name)
    except ServerError:  # topic.tracking.enable is off, or nothing was written yet
        return []


def abandon(journal: Journal, progress: Callable[[str], None]) -> None:
    """Give up an unfinished recovery, and name the set that holds what it kept."""
    kept = journal.done().get("salvage", {}).get("kept")
    journal.abandon("another recovery was begun instead")
    if kept is not None:
        progress(
            f"  {journal.recovery} is given up. What it kept is in {kept}, and this recovery does "
            f"NOT bring it back: pipeline restore topic --from {kept}"
        )
