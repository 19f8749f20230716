"""What is lost between PostgreSQL and its consumers: no tool that takes backups looks at it."""

from checks.losses.loss import Loss

_SLOT = "cdc.slot-can-deliver"
_CONNECTORS = "cdc.connectors-keep-their-slot"
_RUNNING = "cdc.connectors-running"
_CARRY = "cdc.connectors-carry-what-is-published"
_IDENTITY = "cdc.published-rows-have-an-identity"
_TOPICS = "cdc.topics-tell-every-row"
_OFFSETS = "cdc.offsets-fit-their-slots"
_KEEPS_UP = "cdc.slot-keeps-up"
_PUBLICATION = "cdc.publication-carries-every-change"
_SCHEMA = "postgres.columns-and-keys-as-backed-up"
_RESNAPSHOT = "tests/cdc/test_resnapshot.py::"
_REREAD = f"{_RESNAPSHOT}test_after_a_recovery_the_topic_tells_exactly_what_the_table_holds"
_FORGOTTEN = f"{_RESNAPSHOT}test_offsets_that_an_abandoned_task_stores_again_do_not_count"
_LAWS = "tests/test_cdc_states.py::"

CDC_LOSSES = (
    Loss(
        "C1",
        "slot gone after a restore",
        (f"{_SLOT}-slot_dropped", f"{_SLOT}-slot_of_another_kind"),
        f"a recovery makes it anew, and reads every row again: {_REREAD}",
    ),
    Loss(
        "C2",
        "slot made again later: what was written before is in no event",
        (f"{_OFFSETS}-slot_made_again_later",),
        f"a recovery never goes on from there, it reads every row again: {_REREAD}",
    ),
    Loss(
        "C3",
        "offset behind the slot: events are skipped",
        (f"{_OFFSETS}-offset_behind_the_slot",),
        f"a recovery deletes stored offsets, and again those that come back: {_FORGOTTEN}",
    ),
    Loss(
        "C4",
        "offset ahead of the restored WAL: events are dropped",
        (f"{_OFFSETS}-offset_ahead_of_the_server",),
        f"once the server has written beyond it, no LSN tells; a recovery deletes it: {_FORGOTTEN}",
    ),
    Loss(
        "C5",
        "slot invalidated",
        (f"{_SLOT}-slot_lost_its_wal", f"{_KEEPS_UP}-server_keeps_less"),
    ),
    Loss(
        "C6",
        "snapshot.mode never or no_data, and no slot",
        (f"{_CONNECTORS}-no_rows_without_the_slot",),
        f"a recovery sets the mode that reads every row: {_REREAD}",
    ),
    Loss("C7", "slot.drop.on.stop", (f"{_CONNECTORS}-dropped_at_every_stop",)),
    Loss(
        "C8",
        "publication gone, or of less than before",
        (
            f"{_PUBLICATION}-publication_dropped",
            f"{_PUBLICATION}-table_left_out",
            f"{_PUBLICATION}-table_left_out_before_a_backup",
            f"{_PUBLICATION}-operation_not_published",
            f"{_PUBLICATION}-publication_of_all_tables_became_a_list",
            f"{_PUBLICATION}-partitions_told_as_their_root",
            f"{_PUBLICATION}-column_left_out",
            f"{_PUBLICATION}-rows_filtered",
        ),
        "a recovery mends it: tests/cdc/test_source_side.py::"
        "test_a_changed_publication_is_told_and_mended",
    ),
    Loss(
        "C10",
        "two consumers of one slot",
        (f"{_CONNECTORS}-second_connector_on_the_slot",),
        "PostgreSQL lets one in, and a recovery takes it from nobody: "
        f"{_RESNAPSHOT}test_the_slot_of_a_running_connector_is_not_taken_from_it",
    ),
    Loss(
        "C11",
        "heartbeat table not published: the slot stands still",
        (
            f"{_CONNECTORS}-heartbeat_that_nobody_publishes",
            f"{_CONNECTORS}-heartbeat_that_never_runs",
            f"{_KEEPS_UP}-consumer_stands_still",
        ),
    ),
    Loss(
        "C12",
        "failover slot ahead of its standbys, or left over on one",
        (
            "cdc.failover-slot-is-guarded-nobody_waits_for_the_standby",
            "cdc.failover-slot-is-guarded-standby_removed",
            "cdc.failover-slot-is-guarded-standby_down",
        ),
        "what is left over on a standby is not looked at: only the source is asked",
    ),
    Loss("C13", "topic holds rows that the restored tables do not", (), f"buried: {_REREAD}"),
    Loss(
        "C14",
        "column added or dropped between table and registry",
        (),
        f"no check holds the registry against the table; {_SCHEMA} sees what left the table",
    ),
    Loss(
        "C15",
        "the same LSN for other changes, on another timeline",
        (),
        f"offsets are never compared across it: {_LAWS}test_another_history_is_never_resumable; "
        f"they are deleted: {_FORGOTTEN}",
    ),
    Loss(
        "C16",
        "connector or task that does not run, or reads another slot",
        tuple(
            f"{_RUNNING}-{fault}"
            for fault in (
                *("task_failed", "connector_paused", "connector_stopped", "connector_deleted"),
                "connector_reads_another_slot",
            )
        ),
    ),
    Loss(
        "C17",
        "offset moved over events, or deleted where no snapshot follows",
        (
            f"{_OFFSETS}-offset_moved_over_events",
            f"{_OFFSETS}-offset_deleted_without_a_snapshot",
        ),
        f"by the offset only while the connector stands; later by {_TOPICS}, where it reads",
    ),
    Loss(
        "C18",
        "connector that leaves out what is published, or sends it elsewhere",
        tuple(
            f"{_CARRY}-{fault}"
            for fault in (
                *("smaller_include_list", "another_publication", "another_topic_prefix"),
                *("column_excluded", "deletes_skipped", "tombstones_left_out"),
                *("events_that_fail_are_dropped", "events_routed_elsewhere"),
                "snapshot_of_some_tables",
            )
        ),
    ),
    Loss(
        "C19",
        "replica identity that the server cannot use, or that tells less than before",
        (
            *(
                f"{_IDENTITY}-{fault}"
                for fault in (
                    *("identity_removed", "identity_index_dropped", "key_dropped"),
                    *("key_made_deferrable", "partition_without_one"),
                )
            ),
            f"{_SCHEMA}-identity_narrowed_before_a_dump",
        ),
    ),
    Loss(
        "C20",
        "signal table gone, or not published: no table can be read again alone",
        tuple(
            f"cdc.signals-are-heard-{fault}"
            for fault in ("signal_table_gone", "signal_table_unpublished")
        ),
    ),
    Loss(
        "C21",
        "rows in no event, events of no row, messages that are no event",
        tuple(
            f"{_TOPICS}-{fault}"
            for fault in ("rows_in_no_event", "events_of_no_row", "message_that_is_no_event")
        ),
        "not where a topic's retention let go of old events, in tables with a row filter, in those "
        "that are too large to be read each night, nor of values, which are not compared",
    ),
)
