"""Committed offsets brought back, each with proof that its group reads on where it would have."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition

from pipeline.config import KafkaConfig
from pipeline.errors import RecoveryRefused, RestoreError, ServerError
from pipeline.kafka.cluster.momentary import SECONDS, ask_again
from pipeline.kafka.groups.group_moves import Decided, Moves, judge
from pipeline.kafka.groups.groups import Group, client, committed, read
from pipeline.kafka.groups.surroundings import look
from pipeline.kafka.log.place import Spot
from pipeline.repository.sets import BackupSet

IDLE = frozenset({"empty", "dead"})

Restored = dict[str, list[Decided]]


def restore(
    kafka: KafkaConfig,
    backup: BackupSet,
    *,
    moves: Moves,
    groups: Collection[str] = (),
    topics: Collection[str] = (),
    replace: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Restored:
    """Commit the backed up offsets of these groups in these topics, or all; nothing, or each group.

    Everything is decided and proven before the first offset is written. With `replace` offsets
    that are committed now and differ are overwritten; otherwise they are a reason to refuse.

    Raises RecoveryRefused while a group has members or holds other offsets, and RestoreError naming
    every offset that cannot be proven.
    """
    wanted = list(_selected(read(backup), groups, topics, backup.label))
    present = {group.name: group for group in committed(kafka)}
    _refuse_active(wanted, present)
    decided = _decide(kafka, wanted, moves)
    if not replace:
        _refuse_replacing(decided, present)
    for name, some in decided.items():
        _commit(kafka, name, some)
        for one in some:
            progress(f"{name}: {one}")
    _read_back(kafka, decided)
    return decided


def _selected(
    known: Sequence[Group], groups: Collection[str], topics: Collection[str], label: str
) -> Iterator[Group]:
    if missing := set(groups) - {group.name for group in known}:
        raise RestoreError(f"{label} knows no group {', '.join(sorted(missing))}")
    for group in known:
        if not groups or group.name in groups:
            kept = tuple(
                position
                for position in group.positions
                if position.around is not None and (not topics or position.topic in topics)
            )
            if kept:
                yield group.model_copy(update={"positions": kept})


def _refuse_active(wanted: Sequence[Group], present: Mapping[str, Group]) -> None:
    active = [
        f"{group.name} is {present[group.name].state}"
        for group in wanted
        if group.name in present and present[group.name].state not in IDLE
    ]
    if active:
        raise RecoveryRefused(
            f"groups have members, which would go on elsewhere: {', '.join(active)}. Stop their "
            "consumers; nothing was written"
        )


def _refuse_replacing(decided: Restored, present: Mapping[str, Group]) -> None:
    other = []
    for name, some in decided.items():
        held = {p.spot[:2]: p.offset for p in present[name].positions} if name in present else {}
        other += [
            f"{name} at {one.to[0]}[{one.to[1]}] {held[one.to[:2]]}, would become {one.to.offset}"
            for one in some
            if held.get(one.to[:2], one.to.offset) != one.to.offset
        ]
    if other:
        raise RecoveryRefused(
            f"{len(other)} other offsets are committed now and must be given up by name "
            f"(--replace): {'; '.join(other[:5])}. Nothing was written"
        )


def _decide(kafka: KafkaConfig, wanted: Sequence[Group], moves: Moves) -> Restored:
    to: dict[Spot, Spot] = {}
    for position in (position for group in wanted for position in group.positions):
        with suppress(KeyError):
            to[position.spot] = moves.spot(position.spot)
    found = look(kafka, to.values(), partly=True)
    decided: Restored = {}
    problems = []
    for group in wanted:
        for position in group.positions:
            spot = to.get(position.spot)
            judged = judge(position, spot, found.get(spot) if spot else None, moves)
            if isinstance(judged, Decided):
                decided.setdefault(group.name, []).append(judged)
            else:
                problems.append(f"{group.name}: {position.spot}: {judged}")
    if problems:
        raise RestoreError(
            f"{len(problems)} offsets cannot be restored, nothing was written: "
            + "; ".join(problems[:10])
        )
    return decided


def _commit(kafka: KafkaConfig, group: str, decided: Sequence[Decided]) -> None:
    places = [
        TopicPartition(
            one.to.topic,
            one.to.partition,
            one.to.offset,
            one.position.metadata,
            -1 if one.leader_epoch is None else one.leader_epoch,
        )
        for one in decided
    ]
    admin = client(kafka)

    def write() -> None:
        """A broker that lost everything makes the topic of offsets when it is first asked."""
        asked = [ConsumerGroupTopicPartitions(group, places)]
        told = admin.alter_consumer_group_offsets(asked, request_timeout=SECONDS)[group]
        for place in told.result().topic_partitions:
            if place.error is not None:
                raise KafkaException(place.error)

    what = f"offsets of group {group} on {kafka.bootstrap_servers}"
    try:
        ask_again(what, write)
    except ServerError as error:
        raise RestoreError(str(error)) from error


def _read_back(kafka: KafkaConfig, decided: Restored) -> None:
    held = {
        (group.name, *position.spot[:2]): (position.offset, position.metadata)
        for group in committed(kafka, tuple(decided))
        for position in group.positions
    }
    for name, some in decided.items():
        for one in some:
            expected = (one.to.offset, one.position.metadata)
            if (found := held.get((name, *one.to[:2]))) != expected:
                raise RestoreError(
                    f"group {name}, {one.to}: committed {expected}, read back {found}"
                )
