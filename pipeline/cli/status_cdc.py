"""`pipeline status cdc`: the state of each connector, by name."""

import json
import sys
import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cdc.state import kept, source, told
from pipeline.cdc.state.classify import Classification, classify
from pipeline.cdc.state.pace import Pace
from pipeline.cdc.state.read import read
from pipeline.cli.shared import DEFAULT, Config, repository, say
from pipeline.config import PipelineConfig
from pipeline.postgres.server.session import connect

LOSES, UNKNOWN = 1, 11
_CLEAR = "\x1b[H\x1b[2J"


def status_cdc(
    *,
    config: Config = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="the result as one JSON object")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="go on: lag, WAL that is kept, time until it is not")
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, help="seconds between two looks")] = 2.0,
    looks: Annotated[int | None, typer.Option(min=1, help="end after so many of them")] = None,
) -> None:
    """Name the state of each connector and slot, worst first, and what mends it.

    Reads server, Connect and Kafka, and compares them with the newest set of `backup cdc`; changes
    nothing. docs/cdc-states.md has all states. UNKNOWN unless every field was read: also where
    there is no set yet, since no LSN tells of which history an offset is.

    Exit code: 0 sound, 1 a state that loses or will lose, 11 unknown.
    """
    loaded = configuration.load(config)
    if watch:
        _watch(loaded, every, looks)
        return
    found = _classified(loaded)
    for line in [json.dumps(told.facts(found))] if as_json else told.lines(found):
        say(line)
    raise typer.Exit(LOSES if found.loses else UNKNOWN if found.unknown else 0)


def _classified(config: PipelineConfig) -> Classification:
    now = read(config)
    before = kept.earlier(repository(config), lambda line: typer.echo(line, err=True))
    return classify(kept.with_histories(now, before), before, connect=config.connect.url)


def _watch(config: PipelineConfig, every: float, looks: int | None) -> None:
    """Show slots again and again, in place where somebody looks on."""
    pace, looked = Pace(), 0
    with connect(config.postgres, autocommit=True) as connection:
        while looks is None or looked < looks:
            if looked:
                time.sleep(every)  # the pace of a display, nothing is waited for
            looked += 1
            slots = source.slots(connection)
            lines = pace.lines(source.server(connection), slots, datetime.now(UTC))
            if sys.stdout.isatty():
                sys.stdout.write(_CLEAR)
            for line in lines:
                say(line)
