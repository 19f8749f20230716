"""The ways in which PostgreSQL's backups are lost, and the faults that stand for them here.

The numbers are those of the catalogue that the suite began with, so that reports can be compared.
"""

from typing import NamedTuple


class Loss(NamedTuple):
    """One class of damage; `why` speaks where no fault of a check stands for it, or not alone."""

    number: int
    what: str
    faults: tuple[str, ...] = ()
    why: str = ""


_PAGES = "base.page-checksums"
_FILES = "base.files-match-server-manifest"
_CONTROL = "base.control-data-agrees"
_OBJECTS = "backup.objects-match-manifest"
_CHAINS = "backup.chains-unbroken"
_LABEL = "base.label-agrees-with-manifest"
_CATALOGUE = "logical.restores-the-catalogue"
_DRILL = "drills/test_postgres_corruption.py"

LOSSES = (
    Loss(
        1,
        "page damaged, checksums on",
        (
            f"{_PAGES}-page_bit_flipped",
            f"{_PAGES}-page_of_a_parent_flipped",
            f"{_PAGES}-block_of_an_increment_flipped",
        ),
    ),
    Loss(
        2,
        "row damaged, checksum right",
        ("logical.restores-every-row-letter_changed_in_the_dump",),
        f"in a base backup only digests that were taken earlier tell: {_DRILL}",
    ),
    Loss(
        3,
        "bit flipped in a stored object",
        (f"{_OBJECTS}-object_bit_flipped", f"{_OBJECTS}-object_of_a_parent_damaged"),
    ),
    Loss(
        4,
        "file cut",
        (
            f"{_OBJECTS}-object_truncated",
            f"{_FILES}-file_truncated",
            "base.increments-combine-increment_cut",
        ),
    ),
    Loss(5, "file longer than it was", (f"{_OBJECTS}-object_longer",)),
    Loss(6, "file missing", (f"{_OBJECTS}-object_missing", f"{_FILES}-file_left_out")),
    Loss(
        7,
        "file that nobody listed",
        (f"{_FILES}-file_added", "backup.no-foreign-objects-stray_object"),
    ),
    Loss(
        9,
        "lost write: an older page, its checksum right",
        (
            "restore.indexes-complete-lost_write_of_an_index_page",
            "restore.indexes-complete-block_left_out_of_an_increment",
            "base.increments-hold-every-change-changed_block_left_out",
        ),
        "of a table page: where a reference or a digest breaks; a later page: "
        "`base.page-headers-page_from_the_future`",
    ),
    Loss(
        10,
        "pages exchanged",
        (f"{_PAGES}-pages_exchanged", f"{_PAGES}-block_of_an_increment_misplaced"),
        "same block of another relation: its checksum is right, and amcheck or a digest tells",
    ),
    Loss(11, "frozen page damaged", ("restore.tables-sound-frozen_page_damaged",)),
    Loss(
        12,
        "list of files of another backup",
        (
            "base.server-manifest-is-its-own-list_of_the_backup_before",
            "base.label-agrees-with-manifest-manifest_of_another_backup",
        ),
    ),
    Loss(
        13,
        "list of files edited, its checksum made anew",
        (f"{_PAGES}-old_half_of_a_page", f"{_CONTROL}-control_file_reset"),
        "what no page, label or control file contradicts is not seen: manifests are not signed",
    ),
    Loss(
        14,
        "backup of another server",
        (
            f"{_CONTROL}-backup_of_another_server",
            "base.server-manifest-is-its-own-list_of_another_server",
        ),
    ),
    Loss(
        15,
        "another major version",
        (
            "base.version-and-sizes-files_of_another_major_version",
            "base.version-and-sizes-programs_of_another_major_version",
        ),
    ),
    Loss(16, "other size of pages", ("base.version-and-sizes-built_with_other_pages",)),
    Loss(
        17,
        "tablespace missing",
        (
            "base.tablespaces-complete-archive_of_a_tablespace_missing",
            "base.tablespaces-complete-listed_files_of_an_unknown_tablespace",
        ),
    ),
    Loss(19, "backup_label missing", ("base.label-agrees-with-manifest-label_left_out",)),
    Loss(21, "pg_control reset", (f"{_CONTROL}-control_file_reset",)),
    Loss(
        22,
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
        23,
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
        24,
        "backup without its end",
        (
            "base.own-wal-complete-last_wal_left_out",
            "backup.none-vanished-backup_that_ended_elsewhere",
            "restore.base-backup-starts-wal_of_the_backup_zeroed",
        ),
    ),
    Loss(
        25,
        "retention removed what was needed",
        ("wal.archive-complete-first_segment_missing", "backup.none-vanished-set_removed_early"),
    ),
    Loss(
        26,
        "segment missing inside of the window",
        ("wal.archive-complete-middle_segment_missing",),
    ),
    Loss(27, "segment cut", ("wal.segment-sizes-segment_truncated",)),
    Loss(28, "segment zero", ("wal.page-headers-segment_zeroed",)),
    Loss(29, "content of another segment", ("wal.page-headers-content_of_another_segment",)),
    Loss(30, "segment of another server", ("wal.page-headers-segment_of_another_server",)),
    Loss(31, "segment of another branch", ("wal.page-headers-page_of_another_branch",)),
    Loss(32, "bit flipped in a record", ("wal.records-readable-record_bit_flipped",)),
    Loss(33, "history file missing", ("wal.timeline-histories-history_missing",)),
    Loss(34, "history of a test restore", ("wal.timeline-histories-history_of_a_test_restore",)),
    Loss(35, "two contents of one name", ("wal.copies-agree-streamed_copy_differs",)),
    Loss(37, "copy that was not synced", ("wal.page-headers-pages_zeroed",)),
    Loss(
        38,
        "archiver says yes, file never arrives",
        ("postgres.archiver-agrees-with-repository-archived_segment_lost",),
    ),
    Loss(
        39,
        "archive_command that keeps nothing",
        (
            "postgres.archiver-agrees-with-repository-archive_command_lies",
            "postgres.wal-settings-archiving_to_nowhere",
        ),
    ),
    Loss(
        40,
        "error of restore_command taken for the end",
        (),
        "no backup shows it: tests/recovery/test_replay.py, tests/test_wal_command.py",
    ),
    Loss(
        41,
        "wal_level minimal for a while",
        ("postgres.wal-settings-wal_level_minimal",),
        "while it lasts: a server with a logical slot does not start so, and not with archiving on",
    ),
    Loss(42, "unlogged tables", ("postgres.every-table-is-logged-table_made_unlogged",)),
    Loss(43, "target before the end of the backup", (), "refused: tests/recovery/test_plan.py"),
    Loss(
        44,
        "target beyond the archive, source idle",
        ("postgres.wal-settings-archiving_too_rarely", "wal.expected-end-known-receiver_stopped"),
        "refused: tests/recovery/test_plan.py",
    ),
    Loss(45, "target off by one, or in another zone", (), "drills/test_pitr_targets.py"),
    Loss(46, "left paused in recovery", ("postgres.reachable-left_in_recovery",)),
    Loss(47, "recovery that loops", (), "ended by time: tests/recovery/test_replay.py"),
    Loss(
        48, "entry missing in an index", ("restore.indexes-complete-rows_that_the_index_never_saw",)
    ),
    Loss(49, "part of a long value missing", ("restore.tables-sound-toast_chunk_missing",)),
    Loss(
        50,
        "collation of another version",
        (
            "restore.collations-as-sorted-collation_of_another_library",
            "restore.collations-as-sorted-database_of_another_library",
        ),
    ),
    Loss(51, "reference to nothing", ("restore.references-hold-referenced_row_vanished",)),
    Loss(
        53,
        "constraint that was never validated",
        (
            "restore.references-hold-orphan_behind_a_constraint_that_was_not_validated",
            "logical.restores-its-rules-rule_that_was_never_looked_at",
        ),
    ),
    Loss(
        54,
        "sequence behind its column",
        (
            "restore.sequences-ahead-sequence_set_back",
            "restore.sequences-ahead-rows_beyond_the_sequence",
        ),
        "far ahead of it is no loss",
    ),
    Loss(
        55,
        "dump cut",
        (
            "logical.objects-match-manifest-dump_cut",
            "logical.dump-reads-to-its-end-stored_dump_was_cut",
        ),
    ),
    Loss(56, "packed dump damaged", ("logical.dump-reads-to-its-end-packed_rows_damaged",)),
    Loss(
        57,
        "bit flipped in a dump that is not packed",
        (
            "logical.objects-match-manifest-dump_bit_flipped",
            "logical.restores-every-row-letter_changed_in_the_dump",
        ),
    ),
    Loss(
        58,
        "dump of another database, empty, partial, by an older program",
        (
            "logical.holds-what-it-lists-dump_of_another_database",
            "logical.holds-what-it-lists-dump_without_rows",
            "logical.holds-what-it-lists-dump_of_one_table_only",
            "logical.holds-what-it-lists-dump_by_an_older_program",
        ),
    ),
    Loss(
        59,
        "roles, owners, grants, policies lost",
        (
            "logical.objects-match-manifest-roles_left_out",
            f"{_CATALOGUE}-role_left_out",
            f"{_CATALOGUE}-grants_and_owners_left_out",
            f"{_CATALOGUE}-row_security_left_out",
        ),
    ),
    Loss(
        60,
        "extensions, locale, settings, publications lost",
        (
            f"{_CATALOGUE}-publication_left_out",
            f"{_CATALOGUE}-setting_of_the_database_lost",
        ),
        "an extension that this machine lacks fails the load",
    ),
    Loss(
        61,
        "script that swallows errors",
        ("logical.restores-every-row-dump_that_does_not_load",),
        "exit codes of our own: tests/test_cli.py",
    ),
    Loss(64, "proof that shares the mistake of what it proves", (), "the ledger is the truth"),
)
