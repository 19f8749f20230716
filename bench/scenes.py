"""Clusters with a repository of each tool: what damage is put before, and what it is judged by."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.cluster import Bench
from bench.our_side import OurSide
from bench.sides import BarmanSide, Change, CoreSide, PgBackRestSide, Side, changed, copied

Make = Callable[[], AbstractContextManager[Bench]]
"""Makes a folder for one more cluster."""

CONTENT = """
    select count(note) || ' ' || coalesce(md5(string_agg(id || note, '' order by id)), '')
      from orders
"""
"""Rows and a digest of them, as one text."""


@dataclass(frozen=True)
class Scene:
    """One cluster that all tools backed up, and what injections need to know of it.

    `refused` is what a tool said that would not take the last backup, by its name.
    """

    bench: Bench
    sides: list[Side]
    truth: str
    heap: str
    segment: str = ""
    neighbour: str = ""
    stranger: Path = Path()
    control: bytes = b""
    branch: bytes = b""
    refused: dict[str, str] = field(default_factory=dict)

    def reset(self, side: Side) -> None:
        """Give a tool its intact repository back."""
        shutil.rmtree(side.repository)
        copied(self.bench.path("pristine") / side.repository.name, side.repository)


class Source:
    """A server that archives for each tool."""

    def __init__(self, bench: Bench, *, checksums: bool = True) -> None:
        self.bench = bench
        self.ours, self.barman = OurSide(bench), BarmanSide(bench)
        self.pgbackrest, self.core = PgBackRestSide(bench), CoreSide(bench)
        self.sides: list[Side] = [self.core, self.pgbackrest, self.barman, self.ours]
        lines = [line for side in self.sides for line in side.archive_lines()]
        bench.create(lines, {"shared_buffers": "16MB", "fsync": "off"}, checksums=checksums)
        self.pgbackrest.prepare()
        bench.sql("create table orders (id bigint generated always as identity, note text)")
        self.write()
        self.ours.prepare()
        self.barman.prepare()

    def write(self) -> None:
        """Write a thousand rows."""
        self.bench.sql(
            """
            insert into orders (note)
              select md5(random()::text) || repeat('x', 200) from generate_series(1, 1000)
            """
        )

    def back_up(self, rounds: int = 2) -> None:
        """Write, and have each tool take a backup."""
        for _ in range(rounds):
            self.write()
            for side in self.sides:
                side.back_up()
            self.ours.dump()
        self.bench.archive_all()

    def archived(self, segments: int) -> list[str]:
        """Fill so many segments; answer their names."""
        names = []
        for _ in range(segments):
            self.write()
            names.append(self.bench.archive_all())
        return names

    def content(self) -> str:
        return str(self.bench.sql(CONTENT))

    def heap(self) -> str:
        """The file of the table, in the data folder."""
        return str(self.bench.sql("select pg_relation_filepath('orders')"))

    def settle(self) -> None:
        """Have all WAL archived, and keep each repository as it is."""
        self.ours.expect()
        self.bench.archive_all()
        self.barman.take_wal()
        for side in self.sides:
            copied(side.repository, self.bench.path("pristine") / side.repository.name)


@contextmanager
def plain(make: Make) -> Iterator[Scene]:
    """Two backups and six segments behind them; and a stranger with backups of its own."""
    with make() as bench, make() as second:
        stranger = Source(second)
        stranger.back_up()
        second.source.stop()
        source = Source(bench)
        source.back_up()
        names = source.archived(6)
        source.settle()
        yield Scene(
            bench,
            source.sides,
            truth=source.content(),
            heap=source.heap(),
            segment=names[2],
            neighbour=names[0],
            stranger=second.folder,
            control=_reset_control(source),
            branch=_branch_at(source, names[1]),
        )


@contextmanager
def promoted(make: Make) -> Iterator[Scene]:
    """The same, and the server was promoted behind the last backup: WAL goes on in timeline 2."""
    with make() as bench:
        source = Source(bench)
        source.back_up()
        source.archived(2)
        bench.source.stop()
        signal = bench.data / "recovery.signal"
        signal.touch()
        bench.tools.own(signal)
        bench.source.start({"restore_command": "/bin/false"})
        bench.promoted(bench.config.postgres.conninfo())
        source.archived(3)
        bench.sql("checkpoint")  # pg_control tells the timeline of the last one
        source.settle()
        yield Scene(bench, source.sides, truth=source.content(), heap=source.heap())


@contextmanager
def spoilt(make: Make, change: Change) -> Iterator[Scene]:
    """Without checksums; the table's file is changed on disk before the newest backup."""
    with make() as bench:
        source = Source(bench, checksums=False)
        source.back_up(rounds=1)
        truth, heap = source.content(), source.heap()
        bench.source.stop()
        changed(bench.data / heap, change)
        bench.source.start()
        refused = {}
        for side in source.sides:
            try:
                side.back_up()  # of our suite too the base backup alone: the others take no dump
            except RuntimeError as error:
                refused[side.name] = str(error)
        bench.archive_all()
        source.settle()
        yield Scene(bench, source.sides, truth, heap, refused=refused)


def _reset_control(source: Source) -> bytes:
    """What pg_control is after somebody ran pg_resetwal on a copy of the server."""
    bench, copy = source.bench, source.bench.folder / "reset"
    source.core.restore(copy)
    for name in ("recovery.signal", "backup_label"):
        (copy / name).unlink()
    bench.run(bench.programs.postgres / "pg_resetwal", "-f", copy)
    control = (copy / "global/pg_control").read_bytes()
    shutil.rmtree(copy)
    return control


def _branch_at(source: Source, segment: str) -> bytes:
    """The history of a timeline that left the first one where this segment begins."""
    size = int(source.bench.sql("select pg_size_bytes(current_setting('wal_segment_size'))"))
    position = int(segment[8:16], 16) * 0x100000000 + int(segment[16:], 16) * size
    where = f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"
    return f"1\t{where}\tno recovery target specified\n".encode()
