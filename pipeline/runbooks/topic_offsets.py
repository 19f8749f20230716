"""Where the offsets of groups come from after their topics were made again, and where they go."""

from collections.abc import Iterator, Sequence

from pipeline.errors import ObjectMissing
from pipeline.kafka.groups.group_moves import Exact, Moves
from pipeline.kafka.replay.offset_map import OffsetMap
from pipeline.kafka.replay.replay_journal import map_key
from pipeline.repository.sets import Repository
from pipeline.runbooks.topic_evidence import Evidence


def sources(
    evidence: Evidence, backed_up: str | None, kept: str | None
) -> Iterator[tuple[str, list[str]]]:
    """Labels of offset backups, with the topics for which each is the newest word.

    A topic that was made anew has lost its readers' offsets, as one that is gone. No topics at all
    means those of every group that the backup knows.
    """
    there = [name for name in evidence.topics if evidence.same_life(name)]
    gone = [name for name in evidence.topics if name not in there]
    if kept is not None and there:
        yield kept, there
    if backed_up is not None and (gone or not evidence.topics):
        yield backed_up, gone


def moves(
    repository: Repository, evidence: Evidence, replays: Sequence[str], topic: str | None
) -> Moves:
    """Say where records of the topic went: nowhere else, unless a replay wrote a map."""
    if topic in evidence.read_again:
        then = evidence.archived(topic)["partitions"]
        return Exact({(topic, int(partition)): 0 for partition in then})
    for name in replays:
        try:
            found = OffsetMap.load(repository.store, map_key(name))
        except ObjectMissing:
            continue
        if found.topic == topic:
            return found
    if topic is not None and evidence.whole(topic):
        return Exact({})
    return Exact.of(evidence.archive)
