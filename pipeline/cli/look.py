"""Commands that look into the repository."""

import json
from datetime import datetime
from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cli.shared import DEFAULT, Config, need_zone, repository, say
from pipeline.errors import BackupError, ConfigError, ObjectMissing
from pipeline.keeping import reaching
from pipeline.postgres.base import base_backup
from pipeline.postgres.base.reach import reach
from pipeline.postgres.history.find import find as find_suspects
from pipeline.postgres.server.tools import Tools
from pipeline.repository.kinds import ahead, newest, scope
from pipeline.repository.sets import total_size


def list_sets(
    *,
    config: Config = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="one object a line")] = False,
) -> None:
    """List the backup sets, oldest first.

    Ends with exit code 1 when a manifest cannot be read: the set is named, and the others listed.
    """
    bad = list[str]()

    def unreadable(label: str, why: str) -> None:
        bad.append(why)
        line = {"label": label, "kind": label.partition("-")[0], "unreadable": why}
        say(json.dumps(line) if as_json else f"{label}  UNREADABLE: {why}")

    for found in repository(configuration.load(config)).sets(None, unreadable):
        manifest, size = found.manifest, total_size(found.manifest.objects)
        missing = list(manifest.facts.get("incomplete", ()))
        if as_json:
            line = {"label": found.label, "kind": found.kind, "bytes": size, "incomplete": missing}
            line |= {"finished": manifest.finished.isoformat()}
            say(json.dumps(line | ({"scope": part} if (part := scope(manifest)) else {})))
        else:
            told = f"{found.label}  {manifest.finished:%Y-%m-%d %H:%M:%S}Z  {size:>15,} bytes"
            lacks = f"not whole: {', '.join(missing)}" if missing else None
            say("  ".join((told, *filter(None, (scope(manifest), lacks, ahead(manifest))))))
    if bad:
        raise BackupError(f"{len(bad)} sets cannot be read: {'; '.join(bad)}")


def show_reach(
    *,
    config: Config = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="one object a line")] = False,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="to which moments every part can come back together, and what limits each"
        ),
    ] = False,
) -> None:
    """Say which moments each base backup leads to, and what is missing; restores nothing."""
    if everything:
        for found in reaching.everything(configuration.load(config)):
            for line in [json.dumps(found.as_facts())] if as_json else found.lines():
                say(line)
        return

    def unreadable(label: str, why: str) -> None:
        line = {"backup": label, "reason": why, "complete": False, "restorable": False}
        say(json.dumps(line) if as_json else f"{label}\n  BROKEN   cannot be restored: {why}")

    for answer in reach(configuration.load(config), unreadable):
        for line in [json.dumps(answer.as_facts())] if as_json else answer.lines():
            say(line)


def find(
    *,
    table: Annotated[
        list[str] | None, typer.Option(help="name, or schema.name; repeatable with --changes")
    ] = None,
    config: Config = DEFAULT,
    since: Annotated[datetime | None, typer.Option(help="with its offset from UTC")] = None,
    at_least: Annotated[int | None, typer.Option(help="rows in one transaction")] = None,
    changes: Annotated[
        bool,
        typer.Option("--changes", help="what transactions did, row by row, of published tables"),
    ] = False,
    begin: Annotated[
        str | None, typer.Option("--from", help="LSN: commits that start there or later")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", help="LSN: commits that start before it")
    ] = None,
    xid: Annotated[int | None, typer.Option(help="only this transaction")] = None,
    not_in_topics: Annotated[
        bool,
        typer.Option("--not-in-topics", help="only changes whose events are in no topic of CDC"),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one change a line")] = False,
) -> None:
    """List the transactions that dropped, truncated or changed much of a table.

    Reads the archived WAL from the newest base backup on; the last column is the target for
    `pipeline recover postgres --to`.

    With --changes it tells what one transaction did (--xid), or all of a stretch (--from, --to), as
    the slot of CDC would have sent it: a side server decodes the archive, PostgreSQL 16 or later.
    """
    need_zone("--since", since)
    loaded = configuration.load(config)
    if changes:
        from pipeline.cli.changes import show  # noqa: PLC0415 - only this needs a side server

        show(
            loaded,
            begin=begin,
            end=end,
            xid=xid,
            tables=table or (),
            as_json=as_json,
            only_missing=not_in_topics,
        )
        return
    if as_json or begin or end or xid is not None or not_in_topics:
        raise ConfigError("--from, --to, --xid, --not-in-topics and --json go with --changes")
    if table is None or len(table) != 1:
        raise ConfigError("say one --table whose suspects to list, or --changes")
    try:
        found = newest(repository(loaded), base_backup.KIND)
    except ObjectMissing as error:
        raise ConfigError(f"{error}: `find` starts at a base backup, take one first") from error
    findings = find_suspects(
        loaded.repository.path,
        Tools.of(loaded.postgres),
        backup_facts=found.manifest.facts,
        table=table[0],
        since=since,
        at_least=at_least,
    )
    for suspect in findings.suspects:
        rows = "" if suspect.rows is None else f"{suspect.rows:,} rows"
        say(
            f"{suspect.time:%Y-%m-%d %H:%M:%S.%f}Z  {suspect.lsn}  xid {suspect.xid}  "
            f"{suspect.what} of {', '.join(suspect.tables)}  {rows}  --to {suspect.before}"
        )
    for note in findings.unseen:
        say(f"not seen: {note}")
    say(f"read WAL from {findings.start} to {findings.end.lsn}: {findings.end.reason}")
