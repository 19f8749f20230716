"""Feeding a dump to a server: in one transaction, but for more large objects than one can lock."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.config import PostgresConfig
from pipeline.errors import RestoreError, ToolError
from pipeline.postgres.base import large_objects
from pipeline.postgres.logical.one_schema import of_schema, write_list
from pipeline.postgres.server.session import UNGUARDED, environment
from pipeline.postgres.server.tools import Tools, address
from pipeline.repository.sets import BackupSet


def load(
    backup: BackupSet,
    into: PostgresConfig,
    dump: Path,
    *,
    schema: str | None,
    rows: bool,
    superuser: bool,
) -> None:
    """Load a dump that lies in a folder of the tools' own; RestoreError says what is there then."""
    tools, label = Tools.of(into), backup.label
    env = environment(into, UNGUARDED if superuser else {})
    where = [*address(into), f"--dbname={into.dbname}", str(dump)]
    options = ["--single-transaction", *([] if rows else ["--schema-only"])]
    many = rows and schema is None and large_objects.too_many(backup.manifest.facts)
    if schema is not None:
        options.append(write_list(tools, dump, of_schema(schema)))
    elif many:
        options.append(write_list(tools, dump, large_objects.ENTRY, others=True))
    _feed(tools, [*where, *options], env, label, "nothing")
    if many:
        listed = write_list(tools, dump, large_objects.ENTRY)
        _feed(tools, [*where, listed], env, label, "all but large objects")


def _feed(
    tools: Tools, arguments: Sequence[str], env: Mapping[str, str], label: str, before: str
) -> None:
    """Feed the dump; whatever pg_restore says beside its exit code is an error too.

    `before` is what is there if it fails.
    """
    with tempfile.TemporaryFile() as messages:
        blocks = tools.stream(
            "pg_restore", "--exit-on-error", *arguments, messages=messages, env=env
        )
        try:
            for _ in blocks:
                pass
        except ToolError as error:
            missing = "role " in error.output and "does not exist" in error.output
            advice = "; `pipeline restore globals` makes missing roles" if missing else ""
            raise RestoreError(f"{label}: {before} was restored: {error}{advice}") from error
        messages.seek(0)
        if told := messages.read().decode(errors="replace").strip():
            raise RestoreError(f"{label}: restored, but pg_restore said:\n{told}")
