"""`pipeline restore`: bring data back, beside what is there or into nothing, and prove it."""

from pipeline.cli.lazy import Home, group

_HERE = "pipeline.cli.restore"

restore = group(
    "Bring data back; each restore ends with proof.",
    {
        "offsets": Home(
            f"{_HERE}_kafka_offsets",
            "restore_offsets",
            "Commit backed up offsets again, each proven: the group reads the record it would have "
            "read.",
        ),
        "slots": Home(
            f"{_HERE}_slots",
            "restore_slots",
            "Make publication and slot again, as a backup has them; the slot keeps its flags.",
        ),
        "table": Home(
            f"{_HERE}_table",
            "restore_table",
            "Bring tables back to a moment; all other tables stay open, and are not changed.",
        ),
        "database": Home(
            f"{_HERE}_logical",
            "restore_database",
            "Bring a whole dump back into an empty database, and prove it.",
        ),
        "schema": Home(
            f"{_HERE}_logical",
            "restore_schema",
            "Bring the definitions of a dump back into an empty database, without rows.",
        ),
        "globals": Home(
            f"{_HERE}_logical",
            "restore_globals",
            "Say which roles, memberships and tablespaces differ; make them only when told to.",
        ),
        "schemas": Home(
            "pipeline.cli.recover_registry",
            "restore_schemas",
            "Bring the schemas of a backup into a registry with their ids, and prove it.",
        ),
        "topic": Home(
            f"{_HERE}_kafka",
            "restore_topic",
            "Bring an archived topic back, prove every record, then give it its configuration "
            "back.",
        ),
    },
)
