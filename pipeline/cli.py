"""`pipeline`: back up, look, and recover. Every command takes the same pipeline.toml."""

import json
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import psycopg
import typer

from pipeline import config as configuration
from pipeline import retention
from pipeline.config import PipelineConfig
from pipeline.errors import (
    ConfigError,
    LossNotAccepted,
    ObjectMissing,
    PipelineError,
    RecoveryRefused,
)
from pipeline.kafka import archive
from pipeline.postgres import base_backup, logical, receiver
from pipeline.postgres.find import find as find_suspects
from pipeline.postgres.lsn import Lsn
from pipeline.postgres.reach import reach
from pipeline.postgres.targets import SPELLINGS, Target
from pipeline.postgres.tools import Tools
from pipeline.recovery.journal import Journal
from pipeline.recovery.plan import make
from pipeline.recovery.point_in_time import PointInTimeRecovery, new_recovery
from pipeline.repository import Repository, total_size
from pipeline.store import FolderStore

FAILED, INTERLOCK = 1, 10

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
backup = typer.Typer(no_args_is_help=True, help="Take a backup now; what is committed is whole.")
wal = typer.Typer(no_args_is_help=True, help="Hand over WAL; archive_command uses pipeline-wal.")
recover = typer.Typer(
    no_args_is_help=True, help="Bring the pipeline back into service, step by step, resumable."
)
app.add_typer(backup, name="backup")
app.add_typer(wal, name="wal")
app.add_typer(recover, name="recover")

Config = Annotated[
    Path, typer.Option("--config", "-c", envvar="PIPELINE_CONFIG", help="pipeline.toml")
]
DEFAULT = Path("pipeline.toml")


def _say(text: str) -> None:
    typer.echo(text)


def _repository(config: PipelineConfig) -> Repository:
    return Repository(FolderStore(config.repository.path))


@backup.command("base")
def backup_base(config: Config = DEFAULT) -> None:
    """Physical backup of the whole server, hashed while it streams."""
    loaded = configuration.load(config)
    taken = base_backup.take(loaded, _repository(loaded), _say)
    _say(taken.label)


@backup.command("logical")
def backup_logical(
    *,
    config: Config = DEFAULT,
    table: Annotated[
        list[str] | None, typer.Option(help="only this table, with its children; repeatable")
    ] = None,
    schema_only: Annotated[bool, typer.Option("--schema-only", help="no rows")] = False,
) -> None:
    """Dump of the database in one snapshot, with a digest of each table; roles beside it."""
    loaded = configuration.load(config)
    taken = logical.take(
        loaded, _repository(loaded), _say, tables=table or (), schema_only=schema_only
    )
    _say(taken.label)


@backup.command("topics")
def backup_topics(
    config: Config = DEFAULT,
    topic: Annotated[list[str] | None, typer.Option(help="again for each; all without it")] = None,
) -> None:
    """Archive topics as the brokers hold them, up to one common end."""
    loaded = configuration.load(config)
    _say(archive.take(loaded, _repository(loaded), topic or (), _say).label)


@wal.command("receive")
def wal_receive(config: Config = DEFAULT) -> None:
    """Stream WAL as it is flushed, and write the expected end every second, until stopped."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    receiver.receive(configuration.load(config), stop, _say)


@app.command("list")
def list_sets(
    *,
    config: Config = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="one object a line")] = False,
) -> None:
    """List the backup sets, oldest first."""
    for found in _repository(configuration.load(config)):
        manifest, size = found.manifest, total_size(found.manifest.objects)
        if as_json:
            line = {"label": found.label, "kind": found.kind, "bytes": size}
            _say(json.dumps(line | {"finished": manifest.finished.isoformat()}))
        else:
            _say(f"{found.label}  {manifest.finished:%Y-%m-%d %H:%M:%S}Z  {size:>15,} bytes")


@app.command("reach")
def show_reach(
    *,
    config: Config = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="one object a line")] = False,
) -> None:
    """Say which moments each base backup leads to, and what is missing; restores nothing."""
    for answer in reach(configuration.load(config)):
        for line in [json.dumps(answer.as_facts())] if as_json else answer.lines():
            _say(line)


@app.command("retain")
def retain(
    *,
    config: Config = DEFAULT,
    yes: Annotated[bool, typer.Option("--yes", help="remove it; otherwise only say so")] = False,
) -> None:
    """Say what the [plan] lets go and why; with --yes, remove it."""
    loaded = configuration.load(config)
    decision = retention.decide(loaded, datetime.now(UTC))
    for line in decision.lines():
        _say(line)
    if yes:
        count = retention.carry_out(_repository(loaded).store, decision)
        _say(f"removed {count} objects")
    elif decision.removals:
        _say("nothing was removed; to do it: pipeline retain --yes")


@app.command("find")
def find(
    table: Annotated[str, typer.Option(help="name, or schema.name")],
    config: Config = DEFAULT,
    since: Annotated[datetime | None, typer.Option(help="with its offset from UTC")] = None,
    at_least: Annotated[int | None, typer.Option(help="rows in one transaction")] = None,
) -> None:
    """List the transactions that dropped, truncated or changed much of a table.

    Reads the archived WAL from the newest base backup on; the last column is the target for
    `pipeline recover postgres --to`.
    """
    if since is not None and since.tzinfo is None:
        raise ConfigError("--since needs its offset from UTC")
    loaded = configuration.load(config)
    try:
        newest = _repository(loaded).latest(base_backup.KIND)
    except ObjectMissing as error:
        raise ConfigError(f"{error}: `find` starts at a base backup, take one first") from error
    findings = find_suspects(
        loaded.repository.path,
        Tools.of(loaded.postgres),
        backup_facts=newest.manifest.facts,
        table=table,
        since=since,
        at_least=at_least,
    )
    for suspect in findings.suspects:
        rows = "" if suspect.rows is None else f"{suspect.rows:,} rows"
        _say(
            f"{suspect.time:%Y-%m-%d %H:%M:%S.%f}Z  {suspect.lsn}  xid {suspect.xid}  "
            f"{suspect.what} of {', '.join(suspect.tables)}  {rows}  --to {suspect.before}"
        )
    for note in findings.unseen:
        _say(f"not seen: {note}")
    _say(f"read WAL from {findings.start} to {findings.end.lsn}: {findings.end.reason}")


@recover.command("postgres")
def recover_postgres(
    *,
    config: Config = DEFAULT,
    to: Annotated[str, typer.Option(help="the recovery target, see below")] = "latest",
    plan: Annotated[bool, typer.Option("--plan", help="only say what would be done")] = False,
    accept_end: Annotated[
        str | None, typer.Option(help="accept that it ends at this LSN, as a refusal named it")
    ] = None,
    identity: Annotated[
        str | None, typer.Option(help="system identifier of what is replaced; asked otherwise")
    ] = None,
    resume: Annotated[str | None, typer.Option(help="name of an interrupted recovery")] = None,
) -> None:
    """Recover the database to a target, and CDC with it; clients get in last."""
    loaded = configuration.load(config)
    target = Target.parse(to)
    accepted = _lsn(accept_end) if accept_end else None
    if plan or resume is None:
        for line in make(loaded, target, accept_end=accepted).lines():
            _say(line)
        if plan:
            return
    journal = new_recovery(loaded)
    if resume is not None:
        journal = Journal(journal.folder.with_name(resume))
        target = _target_of(journal)
    typed = identity or typer.prompt("System identifier of the server that will be replaced")
    recovery = PointInTimeRecovery(
        loaded, target, journal, typed, accept_end=accepted, progress=_say
    )
    try:
        recovery.run()
    except BaseException:
        if _began(journal):
            again = f" --accept-end {accepted}" if accepted else ""
            _say(f"to go on: pipeline recover postgres --resume {journal.recovery}{again}")
        raise
    _say(f"journal: {journal.path}")
    _say("next: pipeline backup base")


def _began(journal: Journal) -> bool:
    """Whether the recovery was told whom it replaces: before that it has touched nothing."""
    return journal.path.exists() and "check_identity" in journal.done()


def _target_of(journal: Journal) -> Target:
    done = journal.done()
    if "check_identity" not in done:
        raise ConfigError(f"{journal.recovery} was refused before it began: start a new recovery")
    return Target.parse(done["check_identity"]["target"])


def _lsn(text: str) -> Lsn:
    try:
        return Lsn.parse(text)
    except ValueError as error:
        raise ConfigError(f"--accept-end: {error}") from error


recover_postgres.__doc__ = f"{recover_postgres.__doc__}\n\n\b\nTargets:\n{SPELLINGS}"


def main() -> None:
    """Run; an error of ours is one message and an exit code, never a traceback."""
    try:
        app()
    except (RecoveryRefused, LossNotAccepted) as refusal:
        sys.stderr.write(f"refused: {refusal}\n")
        sys.exit(INTERLOCK)
    except (PipelineError, psycopg.Error) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(FAILED)
