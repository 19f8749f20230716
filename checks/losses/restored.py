"""What a restored server shows, and what befalls logical backups."""

from checks.losses.loss import Loss

_CATALOGUE = "logical.restores-the-catalogue"
_INDEXES = "restore.other-indexes-complete"

RESTORED = (
    Loss(
        "48",
        "entry missing in an index",
        ("restore.indexes-complete-rows_that_the_index_never_saw",),
    ),
    Loss("49", "part of a long value missing", ("restore.tables-sound-toast_chunk_missing",)),
    Loss(
        "50",
        "collation of another version",
        (
            "restore.collations-as-sorted-collation_of_another_library",
            "restore.collations-as-sorted-database_of_another_library",
            "restore.collations-as-sorted-collation_that_bounds_partitions",
            "postgres.collations-as-sorted-database_of_another_library",
        ),
    ),
    Loss("51", "reference to nothing", ("restore.references-hold-referenced_row_vanished",)),
    Loss(
        "53",
        "constraint that was never validated",
        (
            "restore.references-hold-orphan_behind_a_constraint_that_was_not_validated",
            "logical.restores-its-rules-rule_that_was_never_looked_at",
        ),
    ),
    Loss(
        "54",
        "sequence behind its column",
        (
            "restore.sequences-ahead-sequence_set_back",
            "restore.sequences-ahead-rows_beyond_the_sequence",
            "restore.sequences-ahead-sequence_that_no_column_owns_set_back",
        ),
        "far ahead of it is no loss",
    ),
    Loss(
        "55",
        "dump cut",
        (
            "logical.objects-match-manifest-dump_cut",
            "logical.dump-reads-to-its-end-stored_dump_was_cut",
        ),
    ),
    Loss("56", "packed dump damaged", ("logical.dump-reads-to-its-end-packed_rows_damaged",)),
    Loss(
        "57",
        "bit flipped in a dump that is not packed",
        (
            "logical.objects-match-manifest-dump_bit_flipped",
            "logical.restores-every-row-letter_changed_in_the_dump",
        ),
    ),
    Loss(
        "58",
        "dump of another database, empty, partial, by an older program",
        (
            "logical.holds-what-it-lists-dump_of_another_database",
            "logical.holds-what-it-lists-dump_without_rows",
            "logical.holds-what-it-lists-dump_of_one_table_only",
            "logical.holds-what-it-lists-dump_by_an_older_program",
        ),
    ),
    Loss(
        "59",
        "roles, owners, grants, policies lost",
        (
            "logical.objects-match-manifest-roles_left_out",
            f"{_CATALOGUE}-role_left_out",
            f"{_CATALOGUE}-grants_and_owners_left_out",
            f"{_CATALOGUE}-row_security_left_out",
            f"{_CATALOGUE}-default_privileges_left_out",
        ),
    ),
    Loss(
        "60",
        "extensions, locale, settings, publications lost",
        (
            f"{_CATALOGUE}-publication_left_out",
            f"{_CATALOGUE}-setting_of_the_database_lost",
            f"{_CATALOGUE}-extension_of_another_version",
            f"{_CATALOGUE}-event_trigger_left_out",
            f"{_CATALOGUE}-database_of_another_encoding",
        ),
        "an extension that this machine lacks fails the load",
    ),
    Loss(
        "61",
        "script that swallows errors",
        ("logical.restores-every-row-dump_that_does_not_load",),
        "exit codes of our own: tests/test_cli.py",
    ),
    Loss("64", "proof that shares the mistake of what it proves", (), "the ledger is the truth"),
    Loss(
        "65",
        "page of a table zeroed",
        (
            "restore.no-page-vanished-page_zeroed_that_an_index_knows",
            "restore.no-page-vanished-page_zeroed_that_vacuum_knows",
        ),
        "of a table with neither a B-tree nor a visibility map only digests tell: PostgreSQL and "
        "every list take it for a page that was never used",
    ),
    Loss(
        "66",
        "table emptied, or most of its rows gone, before it was backed up",
        ("backup.rows-kept-table_emptied", "backup.rows-kept-most_rows_deleted"),
        "while an earlier set is kept; dumps and digests count rows, a base backup without them "
        "has the server's estimates; fewer rows than half are not told",
    ),
    Loss(
        "67",
        "prepared transaction lost",
        (
            "restore.prepared-transactions-kept-state_of_prepared_transactions_left_out",
            "restore.prepared-transactions-kept-files_of_a_moment_before",
        ),
    ),
    Loss(
        "68",
        "prepared transaction forgotten",
        (
            "postgres.no-prepared-transaction-forgotten-coordinator_that_died",
            "postgres.no-prepared-transaction-forgotten-prepared_in_another_database",
        ),
    ),
    Loss(
        "69",
        "entry missing in a hash, GIN, GiST, SP-GiST or BRIN index",
        (
            f"{_INDEXES}-row_that_a_hash_index_never_saw",
            f"{_INDEXES}-words_that_a_gin_index_never_saw",
            f"{_INDEXES}-array_that_a_gin_index_never_saw",
            f"{_INDEXES}-range_that_a_gist_index_never_saw",
            f"{_INDEXES}-text_that_an_spgist_index_never_saw",
            f"{_INDEXES}-summary_that_is_too_narrow",
        ),
        "up to 10,000 rows are looked up, others for each backup; an entry too many is not seen",
    ),
    Loss(
        "70",
        "index left invalid",
        (
            "restore.indexes-usable-unique_index_marked_invalid",
            "restore.indexes-usable-concurrent_build_that_failed",
            "postgres.indexes-usable-unique_index_marked_invalid",
        ),
    ),
    Loss(
        "71",
        "slot, or a file of a running server, in a base backup",
        (
            "base.nothing-of-a-running-server-slot_copied_along",
            "base.nothing-of-a-running-server-pid_file_copied_along",
        ),
    ),
    Loss(
        "72",
        "slot that nobody reads",
        (
            "postgres.no-slot-forgotten-slot_of_a_standby_that_is_gone",
            "postgres.no-slot-forgotten-slot_that_lost_its_wal",
            "postgres.no-slot-forgotten-guard_that_no_backup_moves",
        ),
    ),
    Loss(
        "73",
        "segment that is none, before a whole copy of it",
        ("wal.records-readable-segment_emptied",),
        "the whole copy is read: tests/recovery/test_plan.py::"
        "test_a_segment_that_is_none_is_told_by_its_name_and_a_whole_copy_of_it_is_read",
    ),
    Loss(
        "74",
        "program of an extension missing where it is restored",
        (
            "restore.extensions-at-hand-version_that_is_not_installed",
            "restore.extensions-at-hand-version_of_another_database",
        ),
    ),
)
