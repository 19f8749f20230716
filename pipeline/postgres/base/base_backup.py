"""A physical backup of the whole server: pg_basebackup's stream, hashed on its way.

Of a server with tablespaces of its own pg_basebackup streams nothing: it writes one archive for
each into a folder, beside the backup sets, from where they are hashed and stored.
"""

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC
from typing import IO, Any

from psycopg.rows import dict_row

from pipeline.config import PipelineConfig
from pipeline.errors import BackupError, ToolError
from pipeline.postgres.base import (
    chain,
    configuration,
    decodable,
    row_digests,
    server_manifest,
    tablespaces,
)
from pipeline.postgres.base.held_wal import held_wal
from pipeline.postgres.base.inventory import table_inventory
from pipeline.postgres.replication import readers
from pipeline.postgres.replication.publications import find_publication
from pipeline.postgres.replication.slots import logical_slots
from pipeline.postgres.server.prepared import prepared_transactions
from pipeline.postgres.server.session import connect, environment
from pipeline.postgres.server.tools import Tools
from pipeline.repository import kinds, marker
from pipeline.repository.sets import BackupSet, Draft, Repository, total_size
from pipeline.repository.store import StoredObject, chunks_of
from pipeline.repository.zstd import packed

KIND = kinds.BASE.name
PREPARED = "prepared"  # the fact that tells of prepared transactions: xid by gid
ARCHIVE = ".tar.zst"
OBJECT = f"base{ARCHIVE}"
NOT_HELD = (
    "no slot holds the WAL of this copy, which fails at its end if the server lets go of it first"
)

_START = re.compile(r"write-ahead log start point: ([0-9A-F]+/[0-9A-F]+) on timeline (\d+)")
_END = re.compile(r"write-ahead log end point: ([0-9A-F]+/[0-9A-F]+)")


def take(
    config: PipelineConfig,
    repository: Repository,
    progress: Callable[[str], None] = lambda _: None,
    *,
    incremental: bool = False,
    digests: bool = False,
) -> BackupSet:
    """Take a base backup and commit it as a backup set.

    The set holds its own WAL from start to end (`--wal-method=fetch`), so that it can reach
    consistency even where the archive is lost. Nothing is buffered beyond one block. An
    `incremental` one holds the blocks that changed since the newest set that leads to the server.
    With `digests` every table is read once more, and digested as of an LSN behind the copy.

    Raises BackupError when pg_basebackup fails or its stream was cut: no set is committed then.
    Where only the digests could not be taken, the set is committed without them before it is said.
    """
    with repository.begin(KIND) as draft:
        facts = _server_facts(config)
        root, server = str(config.repository.path.absolute()), facts["system_identifier"]
        if why := marker.of_another(root, server):
            raise BackupError(why)
        parent = chain.parent_for(repository, facts) if incremental else None
        if parent is not None:
            facts[chain.PARENT] = chain.as_fact(parent)
            progress(f"{draft.label}: copying what changed since {parent.label}")
        else:
            progress(f"{draft.label}: copying {facts['database_bytes']:,} bytes of databases")
        guarded = decodable.keep_guard(config, repository)
        with held_wal(config.postgres) as refused, _Copy(config, draft, parent) as copy:
            if refused is not None:
                progress(f"{draft.label}: {NOT_HELD}: {refused}")
            objects = tuple(copy.staged() if facts[tablespaces.FACT] else copy.streamed())
            objects += tuple(_add_configuration(facts, config, draft, progress))
            facts |= copy.positions() | {"end_time": _server_clock(config)}
            facts[PREPARED] = dict(facts[PREPARED].items() & _prepared(config).items())
            facts[decodable.FACT] = decodable.note(config.postgres) | {"guard": guarded}
            for lacking in decodable.told(facts[decodable.FACT]):
                progress(f"{draft.label}: {lacking}")
        if parent is not None:
            chain.still_there(parent, facts[chain.PARENT])
        progress(f"{draft.label}: {total_size(objects):,} bytes stored")
        missed = _add_digests(facts, config, draft.label, progress) if digests else None
        taken = draft.commit(facts, objects)
    if missed is not None:
        raise BackupError(f"{draft.label} is whole, without digests: {missed}") from missed
    return taken


def _add_configuration(
    facts: dict[str, Any], config: PipelineConfig, draft: Draft, progress: Callable[[str], None]
) -> Iterator[StoredObject]:
    """Bring along what the server reads from elsewhere, and say what could not be read."""
    found = configuration.read(config.postgres)
    facts[configuration.FACT] = found.facts()
    for name, why in found.not_read.items():
        progress(f"{draft.label}: NOT brought along: {name}: {why}")
    if found.content:
        yield draft.put(configuration.OBJECT, found.stored())


def _add_digests(
    facts: dict[str, Any], config: PipelineConfig, label: str, progress: Callable[[str], None]
) -> BackupError | None:
    """Note what the tables hold; answer why not, for a copy of hours is not thrown away for it."""
    try:
        found = row_digests.take(
            config.postgres, row_digests.PATIENCE, lambda told: progress(f"{label}: {told}")
        )
    except BackupError as error:
        return error
    facts[row_digests.FACT] = found.facts()
    progress(f"{label}: {len(found.tables)} tables digested, {found.rows:,} rows as of {found.lsn}")
    if found.left_out:
        progress(f"{label}: without digests: {', '.join(found.left_out)}")
    return None


def archives(backup: BackupSet) -> list[StoredObject]:
    """The archives of a set: that of the data folder first, then one for each tablespace."""
    found = [entry for entry in backup.manifest.objects if entry.key.endswith(ARCHIVE)]
    return sorted(found, key=lambda entry: entry.key != backup.prefix + OBJECT)


def tablespace_of(entry: StoredObject) -> str:
    """Oid of the tablespace that an archive holds; empty for the data folder."""
    name = entry.key.rpartition("/")[2].removesuffix(ARCHIVE)
    return "" if name == "base" else name


def _server_facts(config: PipelineConfig) -> dict[str, Any]:
    with connect(config.postgres) as connection:
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
                   ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int
                     as timeline,
                   coalesce(current_setting('summarize_wal', true), 'off')::bool as summarize_wal,
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
        found = find_publication(connection, config.cdc.publication)
        return {
            **row,
            tablespaces.FACT: tablespaces.locations(connection),
            "tables": table_inventory(connection),
            "publication": None if found is None else found.facts(),
            "slots": [slot.facts() for slot in logical_slots(connection)],
            readers.FACT: readers.facts(connection),
            PREPARED: {one.gid: one.xid for one in prepared_transactions(connection)},
        }


def _prepared(config: PipelineConfig) -> dict[str, int]:
    """Transactions that wait for their coordinator: a restored server must have them too."""
    with connect(config.postgres) as connection:
        return {one.gid: one.xid for one in prepared_transactions(connection)}


def _server_clock(config: PipelineConfig) -> str:
    """Ask for the time by the clock that stamps commits: every one in the backup is earlier."""
    with connect(config.postgres) as connection:
        row = connection.execute("select clock_timestamp()").fetchone()
    if row is None:
        raise BackupError("the server did not answer clock_timestamp()")
    return str(row[0].astimezone(UTC).isoformat())


class _Copy(ExitStack):
    """One run of pg_basebackup, and what it said."""

    def __init__(self, config: PipelineConfig, draft: Draft, parent: BackupSet | None) -> None:
        super().__init__()
        self._config, self._draft = config, draft
        self._tools = Tools.of(config.postgres)
        self._messages: IO[bytes] = self.enter_context(
            tempfile.TemporaryFile()  # noqa: SIM115 - entered
        )
        self._since: tuple[str, ...] = ()
        if parent is not None:
            known = self.enter_context(server_manifest.readable(parent, self._tools))
            self._since = (f"--incremental={known}",)

    def streamed(self) -> Iterator[StoredObject]:
        """Store the stream as it comes, and the manifest that lies in it once more by itself."""
        with tempfile.TemporaryFile() as listed:
            tap = server_manifest.ManifestTap(self._blocks("-"), listed)
            yield self._draft.put(OBJECT, packed(tap))
            if not listed.tell():
                label = self._draft.label
                raise BackupError(f"{label}: pg_basebackup sent no {server_manifest.NAME}")
            listed.seek(0)
            yield self._draft.put(server_manifest.OBJECT, packed(chunks_of(listed)))

    def staged(self) -> Iterator[StoredObject]:
        """Have it write an archive for each tablespace; each is removed as soon as it is stored."""
        with tablespaces.staging(self._config.repository.path, self._tools) as folder:
            for _ in self._blocks(str(folder)):
                pass
            for path in sorted(
                folder.glob("*.tar"), key=lambda path: (path.stem != "base", path.stem)
            ):
                with path.open("rb") as archive:
                    yield self._draft.put(f"{path.name}.zst", packed(chunks_of(archive)))
                path.unlink()
            with (folder / server_manifest.NAME).open("rb") as listed:
                yield self._draft.put(server_manifest.OBJECT, packed(chunks_of(listed)))

    def positions(self) -> dict[str, Any]:
        """Where the backup starts and ends, in the words of pg_basebackup."""
        self._messages.seek(0)
        told = self._messages.read().decode(errors="replace")
        start, end = _START.search(told), _END.search(told)
        if start is None or end is None:
            raise BackupError(f"pg_basebackup did not name its WAL range; it said:\n{told}")
        return {"start_lsn": start[1], "timeline": int(start[2]), "end_lsn": end[1]}

    def _blocks(self, target: str) -> Iterator[bytes]:
        """Standard output; ends with an error unless pg_basebackup said that all was well."""
        postgres = self._config.postgres
        blocks = self._tools.stream(
            "pg_basebackup",
            *(f"--pgdata={target}", "--format=tar", "--wal-method=fetch", "--checkpoint=fast"),
            *("--manifest-checksums=SHA256", f"--label={self._draft.label}", "--verbose"),
            *("--no-password", f"--host={postgres.host}", f"--port={postgres.port}"),
            *(f"--username={postgres.user}", *self._since),
            messages=self._messages,
            env=environment(postgres),
        )
        try:
            yield from blocks
        except ToolError as error:
            raise BackupError(f"{self._draft.label}: no backup was taken: {error}") from error
