"""Whether a log is still the one that was archived, by the epochs of its leaders."""

from collections.abc import Sequence
from itertools import pairwise

from kafka.protocol.consumer import OffsetForLeaderEpochRequest

from pipeline.kafka.cluster.raw import RawReader
from pipeline.kafka.log.place import Place


def diverged(reader: RawReader, place: Place, ends: Sequence[tuple[int, int]]) -> str | None:
    """Why the log is not the one that held these leader epochs up to these offsets, or None."""
    for (epoch, _), (later, _) in pairwise(ends):
        if later < epoch:
            return f"leader epoch {later} follows {epoch}: of two histories"
    for epoch, end in ends:
        known, reaches = _epoch_end(reader, place, epoch)
        if known != epoch or reaches < end:
            return (
                f"the log was cut: leader epoch {epoch} was archived up to {end}, "
                f"the broker knows epoch {known} up to {reaches}"
            )
    return None


def _epoch_end(reader: RawReader, place: Place, epoch: int) -> tuple[int, int]:
    topic = OffsetForLeaderEpochRequest.OffsetForLeaderTopic
    partition = topic.OffsetForLeaderPartition(
        partition=place.partition, current_leader_epoch=-1, leader_epoch=epoch
    )
    request = OffsetForLeaderEpochRequest(
        replica_id=-1, topics=[topic(topic=place.topic, partitions=[partition])]
    )
    told = reader.ask_leader(place, request, lambda answer: answer.topics[0].partitions[0])
    return int(told.leader_epoch), int(told.end_offset)
