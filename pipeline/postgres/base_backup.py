"""A physical backup of the whole server: pg_basebackup's stream, hashed on its way."""

import re
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import IO, Any

import psycopg
import zstandard
from psycopg.rows import dict_row

from pipeline.cdc.publications import find_publication
from pipeline.cdc.slots import logical_slots
from pipeline.config import PipelineConfig
from pipeline.errors import BackupError, ToolError
from pipeline.postgres.inventory import table_inventory
from pipeline.postgres.tools import Tools, password_environment
from pipeline.repository import BackupSet, Manifest, Repository

KIND = "base"
OBJECT = "base.tar.zst"
MADE_BY = "recovery-drills 0.1"

_START = re.compile(r"write-ahead log start point: ([0-9A-F]+/[0-9A-F]+) on timeline (\d+)")
_END = re.compile(r"write-ahead log end point: ([0-9A-F]+/[0-9A-F]+)")


def take(
    config: PipelineConfig, repository: Repository, progress: Callable[[str], None] = lambda _: None
) -> BackupSet:
    """Take a base backup and commit it as a backup set.

    The set holds its own WAL from start to end (`--wal-method=fetch`), so that it can reach
    consistency even where the archive is lost. Nothing is buffered beyond one block.

    Raises BackupError when pg_basebackup fails or its stream was cut: no set is committed then.
    """
    started = datetime.now(UTC)
    label = repository.new_label(KIND, started)
    facts = _server_facts(config)
    progress(f"{label}: copying {facts['database_bytes']:,} bytes of databases")
    with tempfile.TemporaryFile() as messages:
        stream = _stream(config, label, messages)
        stored = repository.store.put(f"sets/{KIND}/{label}/{OBJECT}", _compressed(stream))
        facts |= _positions(messages) | {"end_time": _server_clock(config)}
    manifest = Manifest(
        kind=KIND,
        label=label,
        started=started,
        finished=datetime.now(UTC),
        made_by=MADE_BY,
        facts=facts,
        objects=(stored,),
    )
    progress(f"{label}: {stored.size:,} bytes stored")
    return repository.commit(manifest)


def _server_facts(config: PipelineConfig) -> dict[str, Any]:
    with psycopg.connect(**config.postgres.conninfo()) as connection:
        connection.read_only = True
        row = (
            connection.cursor(row_factory=dict_row)
            .execute(
                """
            select system_identifier::text,
                   current_setting('server_version') as server_version,
                   current_setting('server_version_num')::int as server_version_num,
                   pg_size_bytes(current_setting('wal_segment_size')) as wal_segment_size,
                   current_setting('data_checksums')::bool as data_checksums,
                   current_database() as database,
                   (select oid::bigint from pg_database where datname = current_database())
                     as database_oid,
                   pg_current_wal_insert_lsn()::text as inventory_lsn,
                   (select sum(pg_database_size(oid))::bigint from pg_database) as database_bytes,
                   (select array_agg(datname::text order by datname) from pg_database) as databases,
                   (select count(*) from pg_tablespace) as tablespaces
              from pg_control_system()
            """
            )
            .fetchone()
        )
        if row is None:
            raise BackupError("the server did not answer pg_control_system()")
        if row["tablespaces"] > 2:
            raise BackupError(
                "this server has tablespaces of its own, and pg_basebackup can stream only one: "
                "expected pg_default and pg_global, found "
                f"{row['tablespaces']} tablespaces"
            )
        found = find_publication(connection, config.cdc.publication)
        return {
            **row,
            "tables": table_inventory(connection),
            "publication": None if found is None else found.facts(),
            "slots": [slot.facts() for slot in logical_slots(connection)],
        }


def _server_clock(config: PipelineConfig) -> str:
    """Ask for the time by the clock that stamps commits: every one in the backup is earlier."""
    with psycopg.connect(**config.postgres.conninfo()) as connection:
        row = connection.execute("select clock_timestamp()").fetchone()
    if row is None:
        raise BackupError("the server did not answer clock_timestamp()")
    return str(row[0].astimezone(UTC).isoformat())


def _stream(config: PipelineConfig, label: str, messages: IO[bytes]) -> Iterator[bytes]:
    """Blocks of the tar stream; ends with an error unless pg_basebackup said that all was well."""
    postgres = config.postgres
    blocks = Tools.of(postgres).stream(
        "pg_basebackup",
        *("--pgdata=-", "--format=tar", "--wal-method=fetch", "--checkpoint=fast"),
        *("--manifest-checksums=SHA256", f"--label={label}", "--verbose", "--no-password"),
        *(f"--host={postgres.host}", f"--port={postgres.port}", f"--username={postgres.user}"),
        messages=messages,
        env=password_environment(postgres),
    )
    try:
        yield from blocks
    except ToolError as error:
        raise BackupError(f"{label}: no backup was taken: {error}") from error


def _compressed(blocks: Iterator[bytes]) -> Iterator[bytes]:
    packer = zstandard.ZstdCompressor(level=1, write_checksum=True).compressobj()
    for block in blocks:
        if packed := packer.compress(block):
            yield packed
    yield packer.flush()


def _positions(messages: IO[bytes]) -> dict[str, Any]:
    messages.seek(0)
    told = messages.read().decode(errors="replace")
    start, end = _START.search(told), _END.search(told)
    if start is None or end is None:
        raise BackupError(f"pg_basebackup did not name its WAL range; it said:\n{told}")
    return {"start_lsn": start[1], "timeline": int(start[2]), "end_lsn": end[1]}
