"""What befalls archives of topics where every digest agrees: they were made of what is wrong."""

from checks.losses.loss import Loss

_TOPIC = "kafka.archived-as-in-topic"
_ORDER = "kafka.batches-in-order"
_HOLDS = "kafka.segments-hold-what-they-say"
_ONLY = "at rest nothing contradicts it: only the topic tells, as long as it holds these offsets"

TOPIC_LOSSES = (
    Loss(
        "T1",
        "leader epoch rewritten",
        (f"{_ORDER}-leader_of_later", f"{_TOPIC}-leader_epoch_rewritten"),
        "at rest where it runs backwards then: an epoch that fits between its neighbours is seen "
        "in the topic alone",
    ),
    Loss(
        "T2",
        "batches in another order, dropped or doubled, offsets made to follow",
        (
            f"{_ORDER}-batches_changed_places",
            f"{_ORDER}-sequence_ran_back",
            f"{_TOPIC}-batches_in_another_order",
        ),
        "at rest by the sequences of idempotent and transactional producers, which compaction "
        "breaks: others' batches, and the first and last of each producer, only by the topic",
    ),
    Loss(
        "T3",
        "null became empty: keys, and tombstones that delete nothing then",
        (f"{_TOPIC}-tombstone_became_empty",),
        _ONLY,
    ),
    Loss(
        "T4",
        "times moved",
        (
            "kafka.times-not-ahead-times_moved_ahead",
            "kafka.times-not-ahead-times_in_another_unit",
            f"{_TOPIC}-times_shifted",
        ),
        "at rest where they lie further ahead than the broker would have taken; backwards, or by "
        "less, only by the topic",
    ),
    Loss("T5", "headers gone", (f"{_TOPIC}-headers_dropped",), _ONLY),
    Loss(
        "T6",
        "transaction's marker turned into the other",
        (
            f"{_HOLDS}-abort_became_commit",
            f"{_HOLDS}-commit_became_abort",
            f"{_TOPIC}-abort_became_commit",
        ),
        "with the list of aborted transactions changed alike only by the topic; so is a commit "
        "that became an abort in a segment behind all of the transaction's batches",
    ),
    Loss(
        "T7",
        "tombstones gone from a compacted topic",
        (f"{_TOPIC}-tombstones_gone", "kafka.compacted-state-known-tombstones_went_between_runs"),
        f"{_ONLY}, or runs that lay too far apart",
    ),
    Loss(
        "T8",
        "metadata, leader epochs or surroundings of committed offsets gone",
        (
            "kafka.groups-as-backed-up-metadata_left_out",
            "kafka.groups-as-backed-up-leader_epoch_left_out",
            "kafka.group-offsets-in-archive-surroundings_left_out",
        ),
        "metadata and epochs while the group stands where it stood: a group that has gone on "
        "commits others",
    ),
)
