"""The source server as it runs: reachable, archiving for real, with the schema backed up."""

import time
from collections.abc import Iterator
from datetime import timedelta
from random import Random

import psycopg
from psycopg import sql

from checks.check import Observation, check
from checks.subjects import BackupRepository, SourceServer
from fixtures.faults import files, server
from fixtures.material import SOON
from fixtures.scratch import Damage, Scratch
from pipeline.errors import ObjectMissing
from pipeline.postgres.base import base_backup
from pipeline.postgres.server.server import LocalServer
from pipeline.repository.kinds import newest
from pipeline.wait import wait_until

NO_OPS = {"", "true", "/bin/true", "/usr/bin/true", ":", "exit 0", "echo", "cd ."}
"""Values of archive_command that answer "archived" and keep nothing."""
RPO_SECONDS = 300
PAGE = 8192
ARCHIVES = timedelta(seconds=10)
"""A file that is ready is archived within this, where archive_command works."""
_READY = """
    select name from pg_ls_dir('pg_wal/archive_status') name where name ~ '[.]ready$' order by 1
"""


@check(
    "postgres.reachable",
    on=SourceServer,
    severity="blocker",
    advice="Is the server up, and may this account connect from here (pg_hba.conf, password)? If "
    "it is down and should not be: docs/procedures.md, scenario 1.",
)
def reachable(source: SourceServer) -> Iterator[Observation]:
    """The source server answers this account, and it is not a standby."""
    try:
        (row,) = source.rows("select pg_is_in_recovery() as standby")
    except psycopg.OperationalError as error:
        yield Observation(source.address, str(error).strip())
    else:
        standby = "it is in recovery: a standby, or a restore that was never promoted"
        yield Observation(source.address, standby if row["standby"] else None)


@reachable.detects
def server_stopped(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """The server is down."""
    return server.stop(scratch).told_as("Connection refused")


@reachable.detects
def account_locked_out(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """A line in pg_hba.conf that matches too much."""
    rules = server.own_server(scratch).data / "pg_hba.conf"
    rules.write_text("host all all 127.0.0.1/32 reject\n" + rules.read_text())
    server.reload(scratch)
    return Damage(
        scratch.copy.address,
        "pg_hba.conf rejects every client",
        says="pg_hba.conf rejects connection",
    )


@reachable.detects
def left_in_recovery(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """A restore with recovery_target_action = pause that nobody resumed."""
    server.while_stopped(scratch, lambda own: (own.data / "standby.signal").touch())
    return Damage(
        scratch.copy.address, "the server came back as a standby", says="it is in recovery"
    )


@check(
    "postgres.wal-settings",
    on=SourceServer,
    severity="blocker",
    advice="Set it as docs/quickstart.md says, reload, and take a base backup: what was not "
    "archived in between is a hole.",
)
def wal_settings(source: SourceServer) -> Iterator[Observation]:
    """The server writes WAL that CDC and recovery can use, and hands all of it to the archive."""
    names = ("wal_level", "archive_mode", "archive_command", "archive_library", "archive_timeout")
    rows = source.rows(
        "select name, setting from pg_settings where name = any(%s)",
        [*names, "full_page_writes"],
    )
    found = {row["name"]: row["setting"] for row in rows}
    for name, wanted in {
        "wal_level": ("logical",),
        "archive_mode": ("on", "always"),
        "full_page_writes": ("on",),
    }.items():
        bad = found[name] not in wanted
        yield Observation(name, f"expected {wanted[0]}, found {found[name]}" if bad else None)
    command = found["archive_command"].strip()
    nothing = command in NO_OPS and not found.get("archive_library")
    yield Observation("archive_command", f"{command!r} keeps nothing" if nothing else None)
    timeout = int(found["archive_timeout"])
    slow = f"{timeout} s; an idle server must hand over within {RPO_SECONDS} s"
    yield Observation("archive_timeout", None if 0 < timeout <= RPO_SECONDS else slow)


@wal_settings.detects
def archiving_to_nowhere(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """The quick cure for a full pg_wal, never undone."""
    return server.change_setting(scratch, "archive_command", rng.choice(["/bin/true", ""])).told_as(
        "keeps nothing"
    )


@wal_settings.detects
def archiving_too_rarely(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """A quiet server keeps its last segment for longer than the objective allows."""
    return server.change_setting(
        scratch, "archive_timeout", rng.choice(["0", "1h", "301s"])
    ).told_as("an idle server must hand over")


@wal_settings.detects
def torn_pages_allowed(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """A benchmark's setting in production."""
    return server.change_setting(scratch, "full_page_writes", "off").told_as(
        "expected on, found off"
    )


@check(
    "postgres.archiver-agrees-with-repository",
    on=SourceServer,
    severity="blocker",
    advice="The server believes that it archives, or says that it cannot. Read its log for "
    "archive_command, repair it, then take a base backup: the archive has a hole.",
)
def archiver_agrees_with_repository(source: SourceServer) -> Iterator[Observation]:
    """What the server counts as archived lies in the repository, and its last attempt succeeded."""
    (row,) = source.rows(
        """
        select last_archived_wal, last_failed_wal,
               last_failed_time > coalesce(last_archived_time, '-infinity') as failing
          from pg_stat_archiver
        """
    )
    failing = f"the last attempt, for {row['last_failed_wal']}, failed"
    yield Observation("pg_stat_archiver", failing if row["failing"] else None)
    segment = row["last_archived_wal"]
    if segment is None:  # a server that was just recovered, or whose statistics were reset
        waiting = _left_waiting(source)
        never = f"nothing was ever archived, and {len(waiting)} finished files wait"
        yield Observation("pg_stat_archiver", f"{never}, first {waiting[0]}" if waiting else None)
        return
    present = (source.config.repository.path / "wal" / segment).is_file()
    yield Observation(segment, None if present else "counted as archived, not in the repository")


def _left_waiting(source: SourceServer) -> list[str]:
    """Files that the server means to archive, and did not within the time that one takes."""
    found: list[str] = []
    until = time.monotonic() + ARCHIVES.total_seconds()

    def waiting() -> str | None:
        found[:] = [row["name"] for row in source.rows(_READY)]
        return f"{len(found)} files" if found and time.monotonic() < until else None

    wait_until("archiving", waiting, within=2 * ARCHIVES)
    return found


@archiver_agrees_with_repository.detects
def archived_segment_lost(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """A spool that acknowledged first and lost the file afterwards."""
    segment = _archiver(scratch)["last_archived_wal"]
    done = files.drop(scratch, f"wal/{segment}")
    return Damage(segment, done.what, says="not in the repository")


@archiver_agrees_with_repository.detects
def archive_command_lies(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """A wrapper script that ends with 0 whatever happened."""
    server.change_setting(scratch, "archive_command", "test -f %p")
    segment = _switched(scratch, "last_archived_wal")
    return Damage(
        segment, "archive_command said yes and kept nothing", says="not in the repository"
    )


@archiver_agrees_with_repository.detects
def archive_command_hangs(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """Since its start the server waits for a mount that does not answer."""
    server.change_setting(scratch, "archive_command", "sleep 600 # %p %f")
    server.execute(
        scratch,
        "select pg_stat_reset_shared('archiver')",
        "select pg_logical_emit_message(true, 'fault', '')",
        "select pg_switch_wal()",
    )
    what = "archive_command does not come back"
    return Damage("pg_stat_archiver", what, says="nothing was ever archived")


@archiver_agrees_with_repository.detects
def archive_command_fails(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """The credentials of the archive expired."""
    server.change_setting(scratch, "archive_command", "false %p")
    _switched(scratch, "last_failed_wal")
    return Damage("pg_stat_archiver", "archive_command fails", says="the last attempt")


def _archiver(scratch: Scratch[SourceServer]) -> dict[str, str]:
    (row,) = scratch.copy.rows("select last_archived_wal, last_failed_wal from pg_stat_archiver")
    return row


def _switched(scratch: Scratch[SourceServer], told_as: str) -> str:
    """Finish a segment and wait until the archiver has told of it."""
    before = _archiver(scratch)[told_as]
    server.execute(
        scratch, "select pg_logical_emit_message(true, 'fault', '')", "select pg_switch_wal()"
    )

    def waiting() -> str | None:
        return f"still {before}" if _archiver(scratch)[told_as] == before else None

    wait_until(told_as, waiting, within=SOON)
    return _archiver(scratch)[told_as]


@check(
    "postgres.schema-as-backed-up",
    on=SourceServer,
    advice="Was the table removed on purpose? Then the next base backup makes this green. If not: "
    "`pipeline find --table …` names the moment before, and docs/procedures.md the recovery.",
)
def schema_as_backed_up(source: SourceServer) -> Iterator[Observation]:
    """Every table that the newest base backup knows still exists."""
    facts = newest(BackupRepository.of(source.config).sets, base_backup.KIND).manifest.facts
    if facts["database"] != source.config.postgres.dbname:
        raise ObjectMissing(f"inventory of {source.config.postgres.dbname}", facts["database"])
    rows = source.rows(
        """
        select nspname as schema, relname as name
          from pg_class join pg_namespace n on n.oid = relnamespace where relkind in ('r', 'p')
        """
    )
    present = {(row["schema"], row["name"]) for row in rows}
    for table in facts["tables"]:
        place = table["schema"], table["name"]
        gone = None if place in present else "it was in the newest base backup"
        yield Observation(".".join(place), gone)


@schema_as_backed_up.detects
def table_dropped(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """An operator in the wrong window."""
    table = _table(scratch, rng)
    server.execute(scratch, sql.SQL("drop table {} cascade").format(sql.Identifier(*table)))
    return Damage(".".join(table), "it was dropped", says="it was in the newest base backup")


@schema_as_backed_up.detects
def table_renamed(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """A migration that was run half."""
    schema, name = _table(scratch, rng)
    rename = sql.SQL("alter table {} rename to {}")
    new = sql.Identifier(f"{name}_old")
    server.execute(scratch, rename.format(sql.Identifier(schema, name), new))
    return Damage(f"{schema}.{name}", "it was renamed", says="it was in the newest base backup")


def _table(scratch: Scratch[SourceServer], rng: Random) -> tuple[str, str]:
    tables = backed_up(scratch)
    return rng.choice(sorted((table["schema"], table["name"]) for table in tables))


def backed_up(scratch: Scratch[SourceServer]) -> list[dict[str, str]]:
    sets = BackupRepository.of(scratch.config).sets
    tables: list[dict[str, str]] = newest(sets, base_backup.KIND).manifest.facts["tables"]
    return tables


@check(
    "postgres.page-checksums-hold",
    on=SourceServer,
    severity="blocker",
    advice="Damaged pages are in every backup since: find the table (pg_amcheck), and restore it "
    "from the last backup before the first failure. Without checksums, switch them on "
    "(pg_checksums --enable) in the next maintenance window.",
)
def page_checksums_hold(source: SourceServer) -> Iterator[Observation]:
    """Pages carry checksums, and no page was ever read with a wrong one."""
    (row,) = source.rows("show data_checksums")
    off = "off: a damaged page is read, backed up and published as if it were good"
    yield Observation("data_checksums", None if row["data_checksums"] == "on" else off)
    for row in source.rows(
        """
        select datname, checksum_failures as failures, checksum_last_failure as last
          from pg_stat_database where datname is not null
        """
    ):
        bad = f"{row['failures']} damaged pages were read, the last at {row['last']}"
        yield Observation(row["datname"], bad if row["failures"] else None)


@page_checksums_hold.detects
def heap_page_damaged(scratch: Scratch[SourceServer], rng: Random) -> Damage:
    """Bit rot below the server, found by the next reader."""
    (row,) = scratch.copy.rows("select pg_relation_filepath('shop.orders') as path")

    def flip(own: LocalServer) -> None:
        path = own.data / row["path"]
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content) // PAGE) * PAGE + 24] ^= 1 << rng.randrange(8)
        path.write_bytes(content)

    server.while_stopped(scratch, flip)
    try:
        server.execute(scratch, "select count(note) from shop.orders")
    except psycopg.errors.DataCorrupted:
        return Damage(
            scratch.config.postgres.dbname,
            "a page of shop.orders was damaged",
            says="damaged pages were read",
        )
    raise RuntimeError("the damaged page was read without an error")


@page_checksums_hold.detects
def checksums_switched_off(scratch: Scratch[SourceServer], _rng: Random) -> Damage:
    """Switched off for a faster load."""
    server.while_stopped(
        scratch, lambda own: own.tools.run("pg_checksums", "--disable", f"--pgdata={own.data}")
    )
    return Damage("data_checksums", "they were switched off", says="off: a damaged page")
