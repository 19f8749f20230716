"""The twenty tests of the user's written procedures, and the checks that stand for them here."""

from typing import NamedTuple


class WrittenTest(NamedTuple):
    """One of the twenty; `checks` is empty, and `why` says so, where there is none yet."""

    group: str
    test: str
    checks: tuple[str, ...]
    why: str = ""


WRITTEN = (
    WrittenTest(
        "Infrastructure", "Backup directory: base and logical", ("repository.has-its-folders",)
    ),
    WrittenTest(
        "Infrastructure",
        "Backup directory: WAL archive",
        ("repository.has-its-folders", "wal.archive-complete"),
    ),
    WrittenTest(
        "Infrastructure",
        "Storage is provisioned",
        (
            "kubernetes.storage-fits",
            "repository.room-for-the-next-backup",
            "repository.room-for-the-plan",
        ),
    ),
    WrittenTest("Infrastructure", "Storage is closed to others", ("repository.closed-to-others",)),
    WrittenTest(
        "PostgreSQL backup",
        "Base backup integrity",
        (
            "restore.base-backup-starts",
            "backup.objects-match-manifest",
            "backup.chains-unbroken",
            "base.increments-combine",
            "base.increments-hold-every-change",
            "base.files-match-server-manifest",
            "base.label-agrees-with-manifest",
            "base.control-data-agrees",
            "base.page-checksums",
            "base.own-wal-complete",
            "restore.tables-sound",
            "restore.indexes-complete",
        ),
    ),
    WrittenTest(
        "PostgreSQL backup",
        "Logical backup format",
        (
            "logical.dump-reads-to-its-end",
            "logical.holds-what-it-lists",
            "logical.objects-match-manifest",
            "logical.restores-every-row",
        ),
    ),
    WrittenTest(
        "PostgreSQL backup",
        "Metadata completeness",
        ("backup.facts-complete", "logical.facts-complete", "backup.manifests-sealed"),
    ),
    WrittenTest(
        "Kafka backup",
        "Topic backup integrity",
        (
            "kafka.archive-objects-match-manifest",
            "kafka.batches-sound",
            "kafka.segments-hold-what-they-say",
            "kafka.offsets-tile",
            "kafka.nothing-lost",
            "kafka.sets-agree",
            "kafka.sets-hold-what-was-held",
            "kafka.backups-recent",
        ),
    ),
    WrittenTest(
        "Kafka backup",
        "Archive format",
        ("kafka.archive-format", "kafka.index-as-manifest", "kafka.no-strangers"),
    ),
    WrittenTest(
        "Replication slots",
        "Slot metadata exists",
        (
            "cdc.backup-metadata-complete",
            "cdc.slot-can-deliver",
            "cdc.connectors-keep-their-slot",
        ),
    ),
    WrittenTest(
        "Replication slots",
        "Position tracking",
        ("cdc.backup-positions", "cdc.slot-keeps-up", "cdc.offsets-fit-their-slots"),
    ),
    WrittenTest("Kubernetes", "Pods of the pipeline are healthy", ("kubernetes.pods-healthy",)),
    WrittenTest(
        "Kubernetes",
        "Backup jobs ran",
        (
            "kubernetes.cronjobs-as-planned",
            "kubernetes.jobs-succeed",
            "backup.newest-is-recent",
            "logical.whole-database-is-recent",
        ),
    ),
    WrittenTest("Kubernetes", "Services are available", ("kubernetes.services-answer",)),
    WrittenTest(
        "Backup scripts",
        "WAL archiving is in place",
        (
            "postgres.wal-settings",
            "postgres.archiver-agrees-with-repository",
            "wal.receiver-streams",
        ),
    ),
    WrittenTest("Backup scripts", "Backup scripts exist", ("kubernetes.scripts-are-there",)),
    WrittenTest("Backup scripts", "Restore scripts exist", ("kubernetes.scripts-are-there",)),
    WrittenTest(
        "Backup scripts",
        "Scripts have the right permissions",
        (
            "kubernetes.security-context",
            "kubernetes.rights-are-least",
            "kubernetes.secrets-resolve",
        ),
    ),
    WrittenTest("Connectivity", "PostgreSQL access", ("postgres.reachable",)),
    WrittenTest(
        "Connectivity",
        "Schema validation",
        (
            "postgres.schema-as-backed-up",
            "postgres.columns-and-keys-as-backed-up",
            "cdc.publication-carries-every-change",
            "restore.references-hold",
            "logical.restores-the-catalogue",
            "registry.schemas-as-backed-up",
            "registry.ids-in-records-known",
        ),
    ),
)
