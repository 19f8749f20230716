"""`python -m bench`: measure against the others, and write the tables into docs/."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from bench.cluster import bench
from bench.detection import Detection
from bench.dumps import Dumps
from bench.measure import machine, write_block, write_raw
from bench.packages import fetched
from bench.postgres import PostgresBench

ROOT = Path(__file__).parents[1]
REPORTS, DOCUMENT = ROOT / "reports", ROOT / "docs" / "benchmarks.md"
MATRIX = ROOT / "docs" / "detection-matrix.md"
ENOUGH = 5  # rounds below that are a trial
DUMPS = "Dumps, which pgBackRest and Barman do not take:"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def postgres(
    rounds: Annotated[int, typer.Option(min=1, help="runs of each contestant")] = ENOUGH,
    scale: Annotated[int, typer.Option(min=1, help="of pgbench; 1 is 15 MB")] = 35,
    segments: Annotated[int, typer.Option(min=1, help="of WAL to replay")] = 40,
    *,
    document: Annotated[bool, typer.Option(help="write docs/benchmarks.md")] = True,
) -> None:
    """PostgreSQL: this suite, pg_basebackup, pgBackRest and Barman on one cluster."""
    programs = fetched()
    versions = programs.versions()
    with bench(programs) as made:
        run = PostgresBench(made, rounds, typer.echo)
        tables = run.run(scale, segments)
    told = ", ".join(versions.values())
    head = (
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}. {told}. {rounds} rounds, in turn; "
        f"{run.database_bytes / 1e6:,.0f} MB of databases, "
        f"{segments} segments of WAL written. Ratios are medians of the ratios in each round."
    )
    text = "\n\n".join([head, *tables])
    typer.echo(text)
    write_raw(REPORTS, "bench-postgres", run.facts | {"versions": versions})
    if not document or rounds < ENOUGH:
        typer.echo(f"{DOCUMENT.name} stays: that takes {ENOUGH} rounds or more, and --document")
    else:
        write_block(DOCUMENT, "postgres", text)


@app.command()
def detection(
    only: Annotated[str | None, typer.Option(help="one class, by its number")] = None,
    *,
    document: Annotated[bool, typer.Option(help="write docs/detection-matrix.md")] = True,
) -> None:
    """Put the same damage before pg_verifybackup, pgBackRest, Barman and this suite."""
    programs = fetched()
    memory = "/dev/shm"  # noqa: S108 - mkdtemp below it; nothing is timed here
    make = partial(bench, programs, initdb=("--wal-segsize=1",), within=memory)
    run = Detection(make, typer.echo)
    table = run.run(only)
    with make() as made:
        dumped = Dumps(made, typer.echo)
        dumps_table = dumped.run(only)
    versions = programs.versions()
    head = f"{datetime.now(UTC):%Y-%m-%d}. {', '.join(versions.values())}."
    text = f"{head}\n\n{table}\n\n{DUMPS}\n\n{dumps_table}"
    typer.echo(text)
    facts = {"versions": versions, "cases": run.raw, "dumps": dumped.raw}
    write_raw(REPORTS, "bench-detection", facts)
    if not document or only is not None:
        typer.echo(f"{MATRIX.name} stays: that takes every class, and --document")
    else:
        write_block(MATRIX, "detection", text)


if __name__ == "__main__":
    app()
