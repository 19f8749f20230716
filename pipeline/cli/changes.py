"""`pipeline find --changes`: what transactions did, row by row, decoded from the archive."""

import json
from collections.abc import Iterable, Iterator

import typer

from pipeline.cdc.redecoded import not_in_topics
from pipeline.cli.shared import say
from pipeline.config import PipelineConfig
from pipeline.errors import ConfigError
from pipeline.postgres.redecode.pgoutput import Change, Committed, Event, Truncation
from pipeline.postgres.redecode.telling import Count, Facts, as_facts, heading, line
from pipeline.postgres.wal.lsn import Lsn
from pipeline.runbooks.redecoding import commit_of, redecoded


def show(
    config: PipelineConfig,
    *,
    begin: str | None,
    end: str | None,
    xid: int | None,
    tables: Iterable[str],
    as_json: bool,
    only_missing: bool = False,
) -> None:
    """Decode a stretch, or one transaction, and tell of each change while it comes.

    What is not in the topics is known only when all was decoded, and all topics were read.
    """
    start, until = _stretch(config, begin, end, xid)
    with redecoded(config, start, until, _aside) as events:
        changes = _asked(events, frozenset(tables))
        if only_missing:
            changes = not_in_topics(config, changes, _aside)
        count = Count()
        for facts in changes:
            if count.take(facts) and not as_json:
                say(heading(facts))
            say(json.dumps(facts) if as_json else line(facts))
    for told in count.lines(" are in no topic" if only_missing else ""):
        typer.echo(told, err=as_json)


def _aside(told: str) -> None:
    typer.echo(told, err=True)


def _stretch(
    config: PipelineConfig, begin: str | None, end: str | None, xid: int | None
) -> tuple[Lsn, Lsn]:
    if xid is not None:
        if begin or end:
            raise ConfigError("say either --xid, or --from and --to")
        found = commit_of(config, xid)
        return found.lsn, found.end_lsn
    if begin is None or end is None:
        raise ConfigError("--changes needs either --xid, or both --from and --to")
    try:
        return Lsn.parse(begin), Lsn.parse(end)
    except ValueError as error:
        raise ConfigError(f"--from, --to: {error}") from error


def _asked(events: Iterable[Event], tables: frozenset[str]) -> Iterator[Facts]:
    """Leave out other tables, and the ends of transactions: the answer is whole or an error."""
    for event in events:
        if not isinstance(event, Committed) and (not tables or tables & _tables(event)):
            yield as_facts(event)


def _tables(event: Event) -> frozenset[str]:
    """By which names the tables of an event may be asked for."""
    if isinstance(event, Change):
        return frozenset((event.relation.name, str(event.relation)))
    if isinstance(event, Truncation):
        return frozenset(name for one in event.relations for name in (one.name, str(one)))
    return frozenset()
