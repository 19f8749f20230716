"""`pipeline recover`: the runbooks at the terminal."""

from pipeline.cli.lazy import Home, group

recover = group(
    "Bring the pipeline back into service, step by step, resumable.",
    {
        "topics": Home(
            "pipeline.cli.recover_topics",
            "recover_topics",
            "Recover topics that are gone or damaged, and the offsets of groups; without --topic "
            "offsets.",
        ),
        "cdc": Home(
            "pipeline.cli.recover_cdc",
            "recover_cdc",
            "Bring slot, publication, connectors and offsets back; rows are read again where they "
            "must.",
        ),
        "registry": Home(
            "pipeline.cli.recover_registry",
            "recover_registry",
            "Recover the schema registry with every id it had, connectors stopped, and prove it.",
        ),
        "full": Home(
            "pipeline.cli.recover_full",
            "recover_full",
            "Recover database, topics, groups and CDC after the loss of all of them; clients get "
            "in last.",
        ),
        "postgres": Home(
            "pipeline.cli.recover_postgres",
            "recover_postgres",
            "Recover the database to a target, and CDC with it; clients get in last.",
        ),
    },
)
