"""`pipeline restore offsets`: consumer groups go on where they were."""

from collections import Counter
from functools import partial
from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cli.shared import DEFAULT, Config, Origin, repository, say
from pipeline.errors import ConfigError
from pipeline.kafka.archive import archive, losses
from pipeline.kafka.cluster.topics import of_cluster
from pipeline.kafka.groups import groups
from pipeline.kafka.groups.group_moves import Exact, Moves
from pipeline.kafka.groups.group_restore import restore
from pipeline.kafka.replay.offset_map import OffsetMap
from pipeline.kafka.replay.replay_journal import map_key
from pipeline.repository.kinds import LATEST, chosen


def restore_offsets(
    *,
    config: Config = DEFAULT,
    source: Annotated[str, typer.Option("--from", help="label of the backup")] = LATEST,
    group: Annotated[
        list[str] | None, typer.Option(help="only this group; again for each; all without it")
    ] = None,
    topic: Annotated[
        list[str] | None, typer.Option(help="only in this topic; again for each; all without it")
    ] = None,
    archived: Annotated[
        str | None,
        typer.Option(
            "--archive",
            help="label of the topic archive that was replayed: offsets behind its end are moved "
            "to it unless the same records stand there again",
        ),
    ] = None,
    followed: Annotated[
        str | None,
        typer.Option(
            "--map", help="name of the dense replay whose offset map is followed, for its topic"
        ),
    ] = None,
    origin: Origin = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="give up offsets that are committed now")
    ] = False,
) -> None:
    """Commit backed up offsets again, each proven: the group reads the record it would have read.

    Nothing is written while a group has members, where another record stands at an offset, or
    where other offsets are committed and --replace was not said.
    """
    loaded = configuration.load(config)
    kept = repository(loaded)
    cluster = partial(of_cluster, loaded.kafka)
    backup = chosen(kept, groups.KIND, source, origin=cluster, typed=origin, say=say)
    for loss in losses.of_repository(kept, backup.manifest, say=say).values():
        say(f"MORE IN AN OLDER SET  {loss}: --from {loss.held_by}")
    if archived and followed:
        raise ConfigError("--archive and --map: a replay kept the offsets, or it wrote a map")
    moves: Moves = Exact.of(chosen(kept, archive.KIND, archived) if archived else None)
    if followed:
        moves = found = OffsetMap.load(kept.store, map_key(followed))
        topic = [found.topic]
    restored = restore(
        loaded.kafka,
        backup,
        moves=moves,
        groups=group or (),
        topics=topic or (),
        replace=replace,
        progress=say,
    )
    fates = Counter(str(one.fate) for some in restored.values() for one in some)
    for fate, count in sorted(fates.items()):
        say(f"{count:>7,} {fate}")
    several = "s" if len(restored) != 1 else ""
    say(f"{fates.total():,} offsets of {len(restored):,} group{several} from {backup.label}")
