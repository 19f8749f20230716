"""What a connector leaves out by its lists: tables, columns, and rows of the first snapshot.

The lists are regular expressions, separated by commas, that match a whole name whatever its case
(Debezium, connector properties of PostgreSQL).
"""

import re
from collections.abc import Mapping

from pipeline.errors import ConfigError

Settings = Mapping[str, str]


def left_out(told: Settings, table: str) -> str | None:
    """Which setting keeps a connector from a table, or None; its signal table it always reads."""
    if table == told.get("signal.data.collection"):
        return None
    schema = table.partition(".")[0]
    return _refused(told, "schema", schema) or _refused(told, "table", table)


def uncaptured(own: Mapping[str, Settings], table: str) -> str | None:
    """Say of a published table that none of these connectors reads it, or None."""
    lists = [left_out(told, table) for told in own.values()]
    if not lists or not all(lists):
        return None
    return f"{table} is published, and {', '.join(own)} leaves it out by {lists[0]}"


def column_left_out(told: Settings, column: str) -> str | None:
    """Which setting leaves a column, `schema.table.column`, out of every event."""
    return _refused(told, "column", column)


def message_left_out(told: Settings, prefix: str) -> str | None:
    """Which setting keeps a connector from messages of pg_logical_emit_message()."""
    return _refused(told, "message.prefix", prefix)


def column_altered(told: Settings, column: str) -> str | None:
    """Which setting writes another value than that of a column, `schema.table.column`."""
    kinds = ("column.mask.", "column.truncate.")
    names = (name for name in told if name.startswith(kinds) and _listed(told[name], column))
    return next(names, None)


def rows_left_out(told: Settings, table: str) -> str | None:
    """Which setting keeps rows of a table from the snapshot that a recovery begins with."""
    included = told.get("snapshot.include.collection.list")
    if included and not _listed(included, table):
        return "snapshot.include.collection.list"
    overridden = told.get("snapshot.select.statement.overrides", "")
    return "snapshot.select.statement.overrides" if _listed(overridden, table) else None


def skips(told: Settings, operation: str) -> bool:
    """Whether no event of an operation (c, u, d or t) is sent; by default none of a truncation."""
    skipped = told.get("skipped.operations", "t").lower().replace(" ", "").split(",")
    return operation in skipped


def _refused(told: Settings, what: str, name: str) -> str | None:
    included, excluded = f"{what}.include.list", f"{what}.exclude.list"
    if (only := told.get(included)) and not _listed(only, name):
        return included
    return excluded if _listed(told.get(excluded, ""), name) else None


def _listed(patterns: str, name: str) -> bool:
    each = (pattern.strip() for pattern in re.split(r"(?<!\\),", patterns))
    try:
        return any(re.fullmatch(pattern, name, re.IGNORECASE) for pattern in each if pattern)
    except re.error as error:  # Java knows some that Python does not
        raise ConfigError(
            f"whether {patterns!r} is meant for {name} is UNKNOWN: {error}"
        ) from error
