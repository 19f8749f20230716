"""`pipeline restore`: bring data back, beside what is there or into nothing, and prove it."""

import typer

from pipeline.cli.restore_kafka import restore_topic
from pipeline.cli.restore_kafka_offsets import restore_offsets
from pipeline.cli.restore_logical import restore_database, restore_globals, restore_schema
from pipeline.cli.restore_table import restore_table

restore = typer.Typer(no_args_is_help=True, help="Bring data back; each restore ends with proof.")
restore.command("offsets")(restore_offsets)
restore.command("table")(restore_table)
restore.command("database")(restore_database)
restore.command("schema")(restore_schema)
restore.command("globals")(restore_globals)
restore.command("topic")(restore_topic)
