"""`pipeline restore topic`: an archived topic comes back, offsets included."""

from datetime import datetime
from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cli.resumable import refuse_said_again, resumable
from pipeline.cli.shared import DEFAULT, Config, Origin, need_zone, repository, say
from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError, ServerError
from pipeline.kafka.archive import losses
from pipeline.kafka.cluster.topics import of_cluster
from pipeline.kafka.replay import replay, replay_journal, replay_wish
from pipeline.kafka.replay.replay_plan import Mode, Range
from pipeline.repository.kinds import LATEST, TOPICS, chosen
from pipeline.repository.sets import Repository


def restore_topic(
    *,
    config: Config = DEFAULT,
    topic: Annotated[str | None, typer.Option(help="its name when it was archived")] = None,
    archive: Annotated[
        str, typer.Option("--from", help="label; latest is the newest set that holds the topic")
    ] = LATEST,
    as_: Annotated[str | None, typer.Option("--as", help="another name for the target")] = None,
    mode: Annotated[
        Mode, typer.Option(help="exact: the same offsets; dense: renumbered, with a map; see below")
    ] = Mode.AUTO,
    partition: Annotated[list[int] | None, typer.Option(help="only this one; repeatable")] = None,
    from_offset: Annotated[int | None, typer.Option(help="first offset, in each one")] = None,
    to_offset: Annotated[int | None, typer.Option(help="offset to stop before")] = None,
    from_time: Annotated[datetime | None, typer.Option(help="with its offset from UTC")] = None,
    to_time: Annotated[datetime | None, typer.Option(help="with its offset from UTC")] = None,
    append: Annotated[
        bool, typer.Option("--append", help="behind what the target holds; refused otherwise")
    ] = False,
    replication: Annotated[int | None, typer.Option(help="replicas, unless as archived")] = None,
    without_setting: Annotated[
        list[str] | None, typer.Option(help="an archived override that is not brought back")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="only say what would be done")] = False,
    give_back_retention: Annotated[
        bool,
        typer.Option("--give-back-retention", help="even where it deletes what was brought back"),
    ] = False,
    origin: Origin = None,
    resume: Annotated[str | None, typer.Option(help="name of an interrupted replay")] = None,
) -> None:
    """Bring an archived topic back, prove every record, then give it its configuration back.

    Exact mode keeps offsets, log start and times: an offset without a record gets a transaction
    marker, which no consumer sees. Brokers take markers from who may ALTER the cluster; from
    others they come by empty transactions, about 400 a second instead of 15,000. auto is exact
    where that meets the objective for topics, else dense, partition by partition; --plan tells.
    --to-time and --to-offset are not included.

    The topic keeps everything (retention.ms=-1) until the result is proven. Where its own
    retention would then delete records that came back, it stays held, and the command says so.

    A replay that did not end has left a topic that is not whole. The journal says so, consumers
    cannot know: keep them away and --resume it.
    """
    loaded = configuration.load(config)
    store = repository(loaded)
    if resume is not None:
        refuse_said_again(
            {
                "--topic": topic,
                "--from": archive != LATEST,
                "--as": as_,
                "--append": append,
                "--mode": mode != Mode.AUTO,
                "--partition": partition,
                "--origin": origin,
                "--from-offset": from_offset is not None,
                "--to-offset": to_offset is not None,
                "--from-time": from_time,
                "--to-time": to_time,
                "--replication": replication,
                "--without-setting": without_setting,
            }
        )
        journal, told = replay_journal.reopened(loaded, resume)
        made = replay_wish.resumed(loaded, store, told)
    else:
        if topic is None:
            raise ConfigError("--topic says which topic comes back")
        need_zone("--from-time", from_time)
        need_zone("--to-time", to_time)
        archive = _archive(loaded, store, topic, archive, origin)
        wish = replay_wish.Wish(
            topic=topic,
            archive=archive,
            name=as_,
            mode=mode,
            partitions=tuple(partition or ()),
            offsets=Range(from_offset, to_offset),
            since=from_time,
            until=to_time,
            append=append,
            replication=replication,
            without_settings=tuple(without_setting or ()),
        )
        made = replay_wish.make(loaded, store, wish)
        journal = replay_journal.new_journal(loaded, topic)
    for line in made.lines():
        say(line)
    if plan:
        return
    run = replay.Replay(loaded, made, journal, give_back_retention, say)
    with resumable(
        journal,
        "target",
        f"{made.wish.target} is unfinished: keep consumers away",
        f"to go on: pipeline restore topic --resume {journal.recovery}",
    ):
        run.run()


def _archive(
    loaded: PipelineConfig, store: Repository, topic: str, label: str, origin: str | None
) -> str:
    """Choose the archive, and say which older one holds more of the topic."""

    def cluster() -> dict[str, str]:
        try:
            return of_cluster(loaded.kafka)
        except ServerError:  # a plan can be made before there is anything to restore into
            return {}

    backup = chosen(
        store, TOPICS.name, label, topics=[topic], origin=cluster, typed=origin, say=say
    )
    made = replay_journal.made(loaded.repository.path)
    if loss := losses.of_repository(store, backup.manifest, made, say).get(topic):
        say(f"MORE IN AN OLDER SET  {loss}: --from {loss.held_by}")
    return backup.label
