"""`pipeline verify`: whether every object of the repository is still what was written."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from fractions import Fraction
from typing import Annotated

import typer

from pipeline import config as configuration
from pipeline.cli.lazy import Home, group
from pipeline.cli.shared import DEFAULT, Config, say
from pipeline.errors import ConfigError, StoreError
from pipeline.keeping.verify import Verification
from pipeline.keeping.verify import verify as verify_repository

DAMAGED, NOT_VERIFIED = 1, 11


def _verify(
    ctx: typer.Context,
    *,
    config: Config = DEFAULT,
    full: Annotated[bool, typer.Option("--full", help="read every object now")] = False,
    share: Annotated[str, typer.Option(help="part of the bytes to re-read every night")] = "1/7",
    jobs: Annotated[int | None, typer.Option(min=1, help="objects read at a time")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the result as one JSON object")] = False,
) -> None:
    """Compare every object of the repository with its digest; restores nothing.

    Existence and size of every object are compared each time. In full are read: objects that
    nobody read yet, that were written to since, that were damaged the last time, and each night
    the oldest of the rest, until a share of all bytes was read (the first run, and --full, read
    everything). With 1/7 no object stays unread for more than 7 days.

    What a run cannot see: bits that rot on the disk leave size and times of a file as they are.
    In an object that is not read tonight such damage stays unseen until its turn; the report
    prints how long ago the oldest was read. WAL has no manifest: the digest of its first reading
    is kept in verified.jsonl, and damage before that reading is seen by `pytest checks/`, not
    here. Nobody's word replaces a trial restore.

    Exit code: 0 sound, 1 damaged (each object named), 11 could not be verified.
    """
    if (command := ctx.invoked_subcommand) is not None:
        said = map(ctx.get_parameter_source, ctx.params)
        if any(source is not None and source.name == "COMMANDLINE" for source in said):
            raise typer.BadParameter(f"options of `verify {command}` stand behind it")
        return
    loaded = configuration.load(config)
    try:
        run = verify_repository(
            loaded.repository.path,
            full=full,
            share=_share(share),
            jobs=jobs,
            progress=(lambda line: typer.echo(line, err=True)) if as_json else say,
        )
    except StoreError as error:
        sys.stderr.write(f"not verified: {error}\n")
        raise typer.Exit(NOT_VERIFIED) from error
    for line in [json.dumps(_facts(run))] if as_json else _lines(run):
        say(line)
    raise typer.Exit(_code(run))


verify = group(
    _verify.__doc__ or "",
    {
        "consistency": Home(
            "pipeline.cli.verify_consistency",
            "verify_consistency",
            "Fold each CDC topic to its last state by key, and compare it with the table.",
        ),
    },
    _verify,
    alone=True,
)


def _share(text: str) -> Fraction:
    try:
        share = Fraction(text)
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not 0 < share <= 1:
        raise ConfigError(f"--share: expected a part like 1/7, found {text!r}")
    return share


def _code(run: Verification) -> int:
    if run.damaged:
        return DAMAGED
    return NOT_VERIFIED if run.unreadable or not run.survey.subjects else 0


def _lines(run: Verification) -> Iterator[str]:
    found = run.survey
    if run.note:
        yield f"note       {run.note}; the first digests of WAL are lost with it"
    yield from (f"damaged    {damage}" for damage in run.damaged)
    yield from (f"unread     {error}" for error in run.unreadable)
    yield from (f"no set     {key}" for key in found.unlisted)
    yield from (f"gone       {key}" for key in found.gone)
    rate = run.size / 1e6 / max(run.seconds, 1e-3)
    yield (
        f"read now   {len(run.read)} of {len(found.subjects)} objects, {run.size:,} of "
        f"{found.size:,} bytes in {run.seconds:.1f} s ({rate:,.0f} MB/s)"
    )
    if run.oldest is not None:
        ago = (datetime.now(UTC) - run.oldest.read).total_seconds() / 86400
        yield f"oldest     {run.oldest.key}, last read in full {ago:.1f} days ago"
    if not found.subjects:
        yield "not verified: neither a backup set nor WAL lies in this repository"
    elif run.damaged:
        yield f"{len(run.damaged)} damaged: do not remove them, take a new backup, try `reach`"
    elif run.unreadable:
        yield f"not verified: {len(run.unreadable)} objects could not be read"
    else:
        yield f"sound: {found.sets} backup sets and the WAL beside them"


def _facts(run: Verification) -> dict[str, object]:
    found = run.survey
    return {
        "exit_code": _code(run),
        "sets": found.sets,
        "objects": len(found.subjects),
        "bytes": found.size,
        "read_objects": len(run.read),
        "read_bytes": run.size,
        "seconds": round(run.seconds, 3),
        "oldest_read": run.oldest and {"key": run.oldest.key, "read": run.oldest.read.isoformat()},
        "damaged": [asdict(damage) for damage in run.damaged],
        "unreadable": run.unreadable,
        "unlisted": found.unlisted,
        "gone": found.gone,
        "note": run.note,
    }
