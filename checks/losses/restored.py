"""What a restored server shows, and what befalls logical backups."""

from checks.losses.loss import Loss

_CATALOGUE = "logical.restores-the-catalogue"

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
)
