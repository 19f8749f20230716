"""What a connector makes of what is published: the tables, columns and topics by its settings.

The lists are regular expressions, separated by commas, that match a whole name whatever its case
(Debezium, connector properties of PostgreSQL).
"""

import re
from collections.abc import Iterator, Mapping

from checks import transforms
from pipeline.config import PipelineConfig
from pipeline.postgres.replication.slots import PLUGIN

Settings = Mapping[str, str]

_DROPS = {"c": "inserts", "u": "updates", "d": "deletes"}
_NAMING = "SchemaTopicNamingStrategy"


def left_out(told: Settings, table: str) -> str | None:
    """Which setting keeps a connector from a table, or None; its signal table it always reads."""
    if table == told.get("signal.data.collection"):
        return None
    schema = table.partition(".")[0]
    return _refused(told, "schema", schema) or _refused(told, "table", table)


def column_left_out(told: Settings, column: str) -> str | None:
    """Which setting leaves a column, `schema.table.column`, out of every event."""
    return _refused(told, "column", column)


def rows_left_out(told: Settings, table: str) -> str | None:
    """Which setting keeps rows of a table from the snapshot that a recovery begins with."""
    included = told.get("snapshot.include.collection.list")
    if included and not _listed(included, table):
        return "snapshot.include.collection.list"
    overridden = told.get("snapshot.select.statement.overrides", "")
    return "snapshot.select.statement.overrides" if _listed(overridden, table) else None


def _refused(told: Settings, what: str, name: str) -> str | None:
    included, excluded = f"{what}.include.list", f"{what}.exclude.list"
    if (only := told.get(included)) and not _listed(only, name):
        return included
    return excluded if _listed(told.get(excluded, ""), name) else None


def _listed(patterns: str, name: str) -> bool:
    each = (pattern.strip() for pattern in re.split(r"(?<!\\),", patterns))
    return any(re.fullmatch(pattern, name, re.IGNORECASE) for pattern in each if pattern)


def strays(config: PipelineConfig, told: Settings) -> Iterator[str]:
    """Yield how a connector is told to read, or to write, elsewhere than [cdc] says."""
    expected = {
        "publication.name": config.cdc.publication,
        "slot.name": config.cdc.slot,
        "database.dbname": config.postgres.dbname,
        "plugin.name": PLUGIN,
        "topic.prefix": config.cdc.topic_prefix,
        "topic.delimiter": ".",
    }
    without = {"plugin.name": "decoderbufs", "topic.delimiter": "."}  # what Debezium takes then
    for name, wanted in expected.items():
        found = told.get(name, without.get(name, "nothing"))
        if found != wanted and "${" not in found:  # a reference only the worker resolves
            yield f"{name} is {found}, expected {wanted}"
    naming = told.get("topic.naming.strategy", _NAMING)
    if not naming.endswith(_NAMING):
        yield f"topic.naming.strategy is {naming}: topics are not called PREFIX.SCHEMA.TABLE"


def drops(told: Settings) -> Iterator[str]:
    """Yield the settings with which events get lost on their way, whatever their table."""
    skipped = told.get("skipped.operations", "").replace(" ", "").split(",")
    for operation in sorted(_DROPS.keys() & set(skipped)):
        yield f"skipped.operations: {_DROPS[operation]} never arrive"
    if told.get("tombstones.on.delete", "true").lower() != "true":
        yield "tombstones.on.delete is false: compaction keeps what was deleted"
    if told.get("errors.tolerance", "none").lower() != "none":
        yield "errors.tolerance: an event that cannot be converted is dropped, and nothing fails"
    failure = told.get("event.processing.failure.handling.mode", "fail")
    if failure.lower() != "fail":
        yield f"event.processing.failure.handling.mode is {failure}: an event that fails is dropped"


def reshaped(told: Settings, topics: list[str]) -> Iterator[str]:
    """Yield what its transforms do to events that those topics should hold."""
    for transform in transforms.of(told):
        harm = next(filter(None, (transform.harm(topic) for topic in topics)), None)
        if harm is not None:
            yield f"transform {transform.alias} ({transform.kind}) {harm}"
