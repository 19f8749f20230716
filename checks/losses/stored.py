"""What befalls base backups and WAL on the way to the repository, in it, and at their replay."""

from checks.losses.loss import Loss

_PAGES = "base.page-checksums"
_DIGESTS = "restore.rows-as-digested"
_FILES = "base.files-match-server-manifest"
_CONTROL = "base.control-data-agrees"
_OBJECTS = "backup.objects-match-manifest"
_CHAINS = "backup.chains-unbroken"
_LABEL = "base.label-agrees-with-manifest"
_DRILL = "drills/test_postgres_corruption.py"

STORED = (
    Loss(
        "1",
        "page damaged, checksums on",
        (
            f"{_PAGES}-page_bit_flipped",
            f"{_PAGES}-page_of_a_parent_flipped",
            f"{_PAGES}-block_of_an_increment_flipped",
        ),
    ),
    Loss(
        "2",
        "row damaged, checksum right",
        (
            f"{_DIGESTS}-letter_changed_under_a_good_checksum",
            f"{_DIGESTS}-commit_forgotten_by_the_commit_log",
            "logical.restores-every-row-letter_changed_in_the_dump",
        ),
        "in a base backup only digests that were taken with it tell (`pipeline backup base "
        f"--digests`), else nothing: {_DRILL}",
    ),
    Loss(
        "3",
        "bit flipped in a stored object",
        (f"{_OBJECTS}-object_bit_flipped", f"{_OBJECTS}-object_of_a_parent_damaged"),
    ),
    Loss(
        "4",
        "file cut",
        (
            f"{_OBJECTS}-object_truncated",
            f"{_FILES}-file_truncated",
            "base.increments-combine-increment_cut",
        ),
    ),
    Loss("5", "file longer than it was", (f"{_OBJECTS}-object_longer",)),
    Loss("6", "file missing", (f"{_OBJECTS}-object_missing", f"{_FILES}-file_left_out")),
    Loss(
        "7",
        "file that nobody listed",
        (f"{_FILES}-file_added", "backup.no-foreign-objects-stray_object"),
    ),
    Loss(
        "9",
        "lost write: an older page, its checksum right",
        (
            "restore.indexes-complete-lost_write_of_an_index_page",
            "restore.indexes-complete-block_left_out_of_an_increment",
            "base.increments-hold-every-change-changed_block_left_out",
            f"{_DIGESTS}-lost_write_of_a_table_page",
            f"{_DIGESTS}-commit_forgotten_by_the_commit_log",
        ),
        "of a table page without digests: only where a reference breaks",
    ),
    Loss(
        "10",
        "pages exchanged",
        (
            f"{_PAGES}-pages_exchanged",
            f"{_PAGES}-block_of_an_increment_misplaced",
            f"{_DIGESTS}-page_of_another_table",
        ),
        "the same block of another relation has a right checksum: without digests amcheck tells, "
        "where the layout differs",
    ),
    Loss("11", "frozen page damaged", ("restore.tables-sound-frozen_page_damaged",)),
    Loss(
        "12",
        "list of files of another backup",
        (
            "base.server-manifest-is-its-own-list_of_the_backup_before",
            "base.label-agrees-with-manifest-manifest_of_another_backup",
        ),
    ),
    Loss(
        "13",
        "list of files edited, its checksum made anew",
        (f"{_PAGES}-old_half_of_a_page", f"{_CONTROL}-control_file_reset"),
        "what no page, label or control file contradicts is not seen: manifests are not signed",
    ),
    Loss(
        "14",
        "backup of another server",
        (
            f"{_CONTROL}-backup_of_another_server",
            "base.server-manifest-is-its-own-list_of_another_server",
        ),
    ),
    Loss(
        "15",
        "another major version",
        (
            "base.version-and-sizes-files_of_another_major_version",
            "base.version-and-sizes-programs_of_another_major_version",
        ),
    ),
    Loss(
        "16",
        "other size of pages or segments, other order of bytes",
        (
            "base.version-and-sizes-built_with_other_pages",
            f"{_CONTROL}-built_with_other_segments",
            "base.version-and-sizes-written_in_the_other_byte_order",
        ),
    ),
    Loss(
        "17",
        "tablespace missing",
        (
            "base.tablespaces-complete-archive_of_a_tablespace_missing",
            "base.tablespaces-complete-listed_files_of_an_unknown_tablespace",
        ),
    ),
    Loss("19", "backup_label missing", ("base.label-agrees-with-manifest-label_left_out",)),
    Loss("21", "pg_control reset", (f"{_CONTROL}-control_file_reset",)),
    Loss(
        "22",
        "link of a chain missing",
        (
            f"{_CHAINS}-parent_removed",
            f"{_OBJECTS}-parent_of_an_incremental_missing",
            f"{_LABEL}-link_taken_out_of_the_chain",
            f"{_LABEL}-increment_that_passes_for_a_full_backup",
            "restore.base-backup-starts-file_of_the_full_backup_left_out",
        ),
    ),
    Loss(
        "23",
        "chain in a wrong order, or with a link that is not its own",
        (
            f"{_CHAINS}-links_in_the_wrong_order",
            f"{_CHAINS}-parent_exchanged",
            f"{_CHAINS}-parent_edited",
            f"{_CHAINS}-parent_that_ends_too_late",
            f"{_CHAINS}-parent_of_another_branch",
            f"{_CONTROL}-parent_of_another_server",
        ),
    ),
    Loss(
        "24",
        "backup without its end",
        (
            "base.own-wal-complete-last_wal_left_out",
            "backup.none-vanished-backup_that_ended_elsewhere",
            "restore.base-backup-starts-wal_of_the_backup_zeroed",
        ),
    ),
    Loss(
        "25",
        "retention removed what was needed",
        ("wal.archive-complete-first_segment_missing", "backup.none-vanished-set_removed_early"),
    ),
    Loss(
        "26",
        "segment missing inside of the window",
        ("wal.archive-complete-middle_segment_missing",),
    ),
    Loss("27", "segment cut", ("wal.segment-sizes-segment_truncated",)),
    Loss("28", "segment zero", ("wal.page-headers-segment_zeroed",)),
    Loss("29", "content of another segment", ("wal.page-headers-content_of_another_segment",)),
    Loss(
        "30",
        "segment of another server",
        (
            "wal.page-headers-segment_of_another_server",
            "wal.records-readable-whole_segment_of_another_server",
        ),
    ),
    Loss("31", "segment of another branch", ("wal.page-headers-page_of_another_branch",)),
    Loss("32", "bit flipped in a record", ("wal.records-readable-record_bit_flipped",)),
    Loss("33", "history file missing", ("wal.timeline-histories-history_missing",)),
    Loss("34", "history of a test restore", ("wal.timeline-histories-history_of_a_test_restore",)),
    Loss("35", "two contents of one name", ("wal.copies-agree-streamed_copy_differs",)),
    Loss("37", "copy that was not synced", ("wal.page-headers-pages_zeroed",)),
    Loss(
        "38",
        "archiver says yes, file never arrives",
        ("postgres.archiver-agrees-with-repository-archived_segment_lost",),
    ),
    Loss(
        "39",
        "archive_command that keeps nothing",
        (
            "postgres.archiver-agrees-with-repository-archive_command_lies",
            "postgres.wal-settings-archiving_to_nowhere",
        ),
    ),
    Loss(
        "40",
        "error of restore_command taken for the end",
        (),
        "no backup shows it: tests/recovery/test_replay.py, tests/test_wal_command.py",
    ),
    Loss(
        "41",
        "wal_level minimal for a while",
        ("postgres.wal-settings-wal_level_minimal",),
        "while it lasts: a server with a logical slot does not start so, and not with archiving on",
    ),
    Loss(
        "42",
        "unlogged tables",
        (
            "postgres.every-table-is-logged-table_made_unlogged",
            "postgres.every-table-is-logged-unlogged_table_in_another_database",
        ),
    ),
    Loss("43", "target before the end of the backup", (), "refused: tests/recovery/test_plan.py"),
    Loss(
        "44",
        "target beyond the archive, source idle",
        ("postgres.wal-settings-archiving_too_rarely", "wal.expected-end-known-receiver_stopped"),
        "refused: tests/recovery/test_plan.py",
    ),
    Loss("45", "target off by one, or in another zone", (), "drills/test_pitr_targets.py"),
    Loss("46", "left paused in recovery", ("postgres.reachable-left_in_recovery",)),
    Loss("47", "recovery that loops", (), "ended by time: tests/recovery/test_replay.py"),
)
