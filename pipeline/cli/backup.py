"""`pipeline backup`: what is committed is whole."""

from pipeline.cli.lazy import Home, group

_CDC = "Slots, publications, connectors and their offsets, as one state at one LSN."

backup = group(
    "Take a backup now; what is committed is whole.",
    {
        "all": Home(
            "pipeline.cli.backup_all",
            "backup_all",
            "Back up every part as one: a set that names them, at one point.",
        ),
        "base": Home(
            "pipeline.cli.backup_postgres",
            "backup_base",
            "Physical backup of the whole server, tablespaces included, hashed while it streams.",
        ),
        "logical": Home(
            "pipeline.cli.backup_postgres",
            "backup_logical",
            "Dump of the database in one snapshot, with a digest of each table; roles beside it.",
        ),
        "topics": Home(
            "pipeline.cli.backup_kafka",
            "backup_topics",
            "Archive topics as the brokers hold them, up to one common end.",
        ),
        "offsets": Home(
            "pipeline.cli.backup_kafka",
            "backup_offsets",
            "Committed offsets of every consumer group, and which record each would read next.",
        ),
        "cdc": Home("pipeline.cli.backup_cdc", "backup_cdc", _CDC),
        "slots": Home("pipeline.cli.backup_cdc", "backup_cdc", _CDC),
        "schemas": Home(
            "pipeline.cli.backup_schemas",
            "backup_schemas",
            "Back up the schema registry: schemas with their ids, settings, and its storage topic.",
        ),
    },
)
