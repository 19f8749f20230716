"""The newest logical backup as it lies in the repository: whole, readable, of everything."""

import re
from collections.abc import Iterator
from datetime import timedelta
from random import Random

from checks.check import Observation, check
from checks.recency import recent
from checks.subjects import BackupRepository, LogicalBackup
from fixtures.faults import backups, dumps, files, sources
from fixtures.scratch import Damage, Scratch
from pipeline.postgres.logical import logical
from pipeline.repository.store import read

PLANNED = timedelta(hours=26)
"""Daily, and two hours to run."""
COMPLETE = "-- PostgreSQL database cluster dump complete"
_ROLE = re.compile(r"(?m)^CREATE ROLE .+;$")
FACTS: dict[str, type] = {
    "system_identifier": str,
    "server_version_num": int,
    "database": str,
    "scope": str,
    "encoding": str,
    "collate": str,
    "lsn": str,
    "snapshot": str,
    "objects": list,
    "tables": list,
}
"""What a restore must know to make the database, and to prove what came back."""


@check(
    "logical.objects-match-manifest",
    on=LogicalBackup,
    severity="blocker",
    advice="Do not load it: pg_restore cannot tell a damaged value from a good one. Take a new "
    "one (`pipeline backup logical`), and look at the storage below it.",
)
def objects_match(dump: LogicalBackup) -> Iterator[Observation]:
    """Dump and roles of the newest logical backup have the size and digest of their manifest."""
    for name in (logical.DUMP, logical.GLOBALS):
        if dump.object(name) is None:
            yield Observation(dump.backup.prefix + name, "not in the manifest")
    for entry in dump.backup.manifest.objects:
        expected, found = (entry.size, entry.sha256), dump.found.get(entry.key)
        missing = "missing" if found is None else f"expected {expected}, found {found}"
        yield Observation(entry.key, None if found == expected else missing)


@objects_match.detects
def dump_bit_flipped(scratch: Scratch[LogicalBackup], rng: Random) -> Damage:
    """Bit rot in storage."""
    return files.flip_bit(scratch, _dump(scratch), rng).told_as(", found (")


@objects_match.detects
def dump_cut(scratch: Scratch[LogicalBackup], rng: Random) -> Damage:
    """A copy that ended early: `pg_restore --list` says that all is well."""
    return files.truncate(scratch, _dump(scratch), rng).told_as(", found (")


@objects_match.detects
def roles_left_out(scratch: Scratch[LogicalBackup], _rng: Random) -> Damage:
    """A dump without pg_dumpall --globals-only: owners and grants have nobody to go to."""
    backup = backups.latest_logical(scratch)
    kept = [one for one in backup.manifest.objects if not one.key.endswith(logical.GLOBALS)]
    backups.reseal(scratch, backup, objects=kept)
    return Damage(
        backup.prefix + logical.GLOBALS, "the set was made without it", says="not in the manifest"
    )


def _dump(scratch: Scratch[LogicalBackup]) -> str:
    return backups.latest_logical(scratch).prefix + logical.DUMP


@check(
    "logical.dump-reads-to-its-end",
    on=LogicalBackup,
    severity="blocker",
    advice="The dump was broken before it was stored: load the one before it, and take a new one "
    "while you watch the disk of the machine that runs pg_dump.",
)
def dump_reads_to_its_end(dump: LogicalBackup) -> Iterator[Observation]:
    """PostgreSQL's own program reads the dump from its first byte to its last, and the roles."""
    yield Observation(dump.backup.prefix + logical.DUMP, dump.dump.trouble)
    entry = dump.object(logical.GLOBALS)
    if entry is not None:
        text = read(dump.backup.store, entry.key).decode(errors="replace")
        cut = f"its last line is not {COMPLETE!r}"
        yield Observation(entry.key, None if COMPLETE in text else cut)
        yield Observation(entry.key, None if _ROLE.search(text) else "it makes no role")


@dump_reads_to_its_end.detects
def stored_dump_was_cut(scratch: Scratch[LogicalBackup], rng: Random) -> Damage:
    """A full disk under pg_dump, in a script without pipefail: the digest is of what came."""
    return dumps.change(
        scratch, logical.DUMP, lambda content: content[: _later(content, rng)]
    ).told_as("pg_restore: error")


@dump_reads_to_its_end.detects
def packed_rows_damaged(scratch: Scratch[LogicalBackup], _rng: Random) -> Damage:
    """Bad memory while the dump was packed: the digest is of the damaged bytes."""
    return dumps.change(scratch, logical.DUMP, dumps.break_a_packed_block).told_as(
        "pg_restore: error"
    )


@dump_reads_to_its_end.detects
def roles_cut(scratch: Scratch[LogicalBackup], rng: Random) -> Damage:
    """pg_dumpall lost its connection half way."""
    return dumps.change(
        scratch, logical.GLOBALS, lambda content: content[: rng.randrange(len(content) // 2)]
    ).told_as("its last line is not")


def _later(content: bytes, rng: Random) -> int:
    """A place behind the table of contents."""
    return rng.randrange(len(content) // 2, len(content) - 100)


@check(
    "logical.holds-what-it-lists",
    on=LogicalBackup,
    severity="blocker",
    advice="The dump is of another database, of a part of it, or empty. Look at how the job calls "
    "the backup (database, filters, version of pg_dump), and take a new one.",
)
def holds_what_it_lists(dump: LogicalBackup) -> Iterator[Observation]:
    """The dump is of the configured database and server, and holds every table noted with it."""
    facts, found = dump.facts, dump.dump
    wanted = dump.config.postgres.dbname
    yield _same("database", wanted, facts["database"])
    yield _same("database", wanted, found.database)
    major = facts["server_version_num"] // 10_000
    yield _same("server_version_num", major, found.from_server)
    old = f"pg_dump was of version {found.by_program}, the server of {major}"
    yield Observation("pg_dump", old if (found.by_program or 0) < major else None)
    tables = {(table["schema"], table["name"]) for table in facts["tables"]}
    for table in sorted(tables):
        lacks = None if found.holds(*table, rows=True) else "the dump has no rows of it"
        defined = found.holds(*table, rows=False)
        yield Observation(".".join(table), lacks if defined else "not in it")
    rows = sum(table["rows"] for table in facts["tables"])
    yield Observation("rows", None if rows else "no table has any row")


def _same(subject: str, expected: object, found: object) -> Observation:
    told = None if expected == found else f"expected {expected}, found {found}"
    return Observation(subject, told)


@holds_what_it_lists.detects
def dump_of_one_table_only(scratch: Scratch[LogicalBackup], rng: Random) -> Damage:
    """A filter that somebody left in the job."""
    left, kept = rng.sample(["customers", "orders"], 2)
    dumps.taken_otherwise(scratch, f"--table=shop.{kept}")
    return Damage(f"shop.{left}", f"only shop.{kept} was dumped", says="not in it")


@holds_what_it_lists.detects
def dump_of_another_database(scratch: Scratch[LogicalBackup], _rng: Random) -> Damage:
    """The job connects to the default database: a good dump, of nothing."""
    dumps.taken_otherwise(scratch, dbname="template1")
    return Damage(
        "database", "template1 was dumped in its place", says="expected postgres, found template1"
    )


@holds_what_it_lists.detects
def dump_by_an_older_program(scratch: Scratch[LogicalBackup], _rng: Random) -> Damage:
    """The pg_dump of another installation came first in PATH (GitLab, 2017)."""
    dumps.change(scratch, logical.DUMP, dumps.by_an_older_program)
    return Damage(
        "pg_dump", "its version is older than the server's", says="pg_dump was of version"
    )


@holds_what_it_lists.detects
def dump_without_rows(scratch: Scratch[LogicalBackup], _rng: Random) -> Damage:
    """Taken right after something had emptied every table."""
    sources.logical_backup_after(scratch, "truncate shop.customers, shop.orders")
    return Damage("rows", "every table was empty", says="no table has any row")


@check(
    "logical.facts-complete",
    on=LogicalBackup,
    advice="Nothing could prove that a restore of this set brought everything back: take a new "
    "one with this version.",
)
def facts_complete(dump: LogicalBackup) -> Iterator[Observation]:
    """The manifest tells what a restore must make, and what it must find afterwards."""
    for name, kind in FACTS.items():
        value = dump.facts.get(name)
        told = isinstance(value, kind) and value not in ("", [])
        yield Observation(name, None if told else f"expected {kind.__name__}, found {value!r}")
    for table in dump.facts.get("tables") or []:
        lacking = {"schema", "name", "rows", "digest"} - table.keys()
        yield Observation(
            f"{table.get('schema')}.{table.get('name')}",
            f"it is noted without {', '.join(sorted(lacking))}" if lacking else None,
        )


@facts_complete.detects
def fact_not_noted(scratch: Scratch[LogicalBackup], rng: Random) -> Damage:
    """A manifest of a tool that did not note it."""
    name = rng.choice(sorted(set(FACTS) - {"scope"}))
    return backups.drop_fact(scratch, name, backups.latest_logical(scratch)).told_as("found None")


@facts_complete.detects
def table_without_digest(scratch: Scratch[LogicalBackup], rng: Random) -> Damage:
    """A table whose rows nobody counted."""
    backup = backups.latest_logical(scratch)
    tables = [dict(table) for table in backup.manifest.facts["tables"]]
    table = rng.choice(tables)
    del table["digest"]
    backups.change_fact(scratch, "tables", tables, backup)
    return Damage(
        f"{table['schema']}.{table['name']}",
        "it was noted without a digest",
        says="noted without digest",
    )


@check(
    "logical.whole-database-is-recent",
    on=BackupRepository,
    advice="Look at the log of the last job, then run `pipeline backup logical` without --table "
    "and --schema-only: those sets do not stand in for one of everything.",
)
def whole_database_is_recent(repository: BackupRepository) -> Iterator[Observation]:
    """A logical backup of the whole database is not older than the plan allows."""
    yield from recent(repository.sets, logical.KIND, PLANNED)


@whole_database_is_recent.detects
def logical_backup_skipped(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """The job did not run last night."""
    backup = backups.latest_logical(scratch)
    earlier = timedelta(hours=26, seconds=rng.randrange(1, 86_400))
    times = {name: getattr(backup.manifest, name) - earlier for name in ("started", "finished")}
    backups.reseal(scratch, backup, **times)
    return Damage(
        logical.KIND, f"its newest set became {earlier} older", says=" old, planned are at most"
    )


@whole_database_is_recent.detects
def clock_was_wrong(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """A dump from the future would stay the newest until then, whatever happens to the job."""
    backup = backups.latest_logical(scratch)
    later = timedelta(days=rng.randrange(1, 60))
    times = {name: getattr(backup.manifest, name) + later for name in ("started", "finished")}
    backups.reseal(scratch, backup, **times)
    return Damage(
        logical.KIND, f"its newest set is {later} ahead", says="from now: a clock is wrong"
    )


@whole_database_is_recent.detects
def schema_alone_since(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """Somebody made the job quicker."""
    scope = rng.choice(("database, schema only", "tables"))
    backup = backups.latest_logical(scratch)
    backups.change_fact(scratch, "scope", scope, backup)
    return Damage(logical.KIND, f"its only set is of: {scope}", says="there is none")
