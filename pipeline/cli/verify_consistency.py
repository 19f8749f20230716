"""`pipeline verify consistency`: whether topics tell what their tables hold."""

import json
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated

import psycopg
import typer

from pipeline import config as configuration
from pipeline.cdc import point
from pipeline.cdc.consistency import verify as verify_topics
from pipeline.cdc.verdicts import FAIL, PASS, Consistency
from pipeline.cli.shared import DEFAULT, Config, say
from pipeline.cli.verify import NOT_VERIFIED
from pipeline.errors import ServerError, without_logins

CODES = {PASS: 0, FAIL: 1}


def verify_consistency(
    *,
    config: Config = DEFAULT,
    table: Annotated[
        list[str] | None, typer.Option(help="compare only this table; again for each")
    ] = None,
    within: Annotated[
        float, typer.Option(min=0, help="seconds that events may be on their way")
    ] = point.WITHIN.total_seconds(),
    as_json: Annotated[bool, typer.Option("--json", help="the result as one JSON object")] = False,
) -> None:
    """Fold each CDC topic to its last state by key, and compare it with the table.

    Clients may write meanwhile: tables are read by one snapshot, and the topics folded to that
    moment, once the connector has delivered everything up to it. Nothing is locked, and nothing is
    written but a temporary copy of the slot, where the source is idle. The snapshot holds back
    vacuum for as long as it takes; what is folded lies in a file in $SQLITE_TMPDIR, or $TMPDIR.

    Named are rows without an event, keys without a row (ghosts), rows with other values (stale),
    events that came behind later ones of their key (out of order), and how many came again
    (duplicates, which a delivery of at least once may have).

    Exit code: 0 consistent, 1 not, 11 could not be found out.
    """
    loaded = configuration.load(config)
    try:
        found = verify_topics(
            loaded,
            lambda line: typer.echo(line, err=True),
            tables=table or (),
            within=timedelta(seconds=within),
        )
    except (ServerError, psycopg.Error) as error:
        sys.stderr.write(f"not verified: {without_logins(' '.join(str(error).split()))}\n")
        raise typer.Exit(NOT_VERIFIED) from error
    code = CODES.get(found.outcome, NOT_VERIFIED)
    for line in [json.dumps(found.facts() | {"exit_code": code})] if as_json else _lines(found):
        say(line)
    raise typer.Exit(code)


def _lines(found: Consistency) -> Iterator[str]:
    for one in found.tables:
        for kind, named in one.examples.items():
            yield from (f"{kind:<14}{one.table}: {each}" for each in named)
        yield from (f"{'UNKNOWN':<14}{one.table}: {why}" for why in one.doubts)
        yield from (f"{'not compared':<14}{one.table}.{what}" for what in one.not_compared)
    yield from map(str, found.tables)
    if not found.tables:
        yield "not verified: no published table is read by the connector"
    yield f"{found.outcome} at {found.lsn}"
