"""The same damage before each tool: seen at rest, seen at the restore, or silent.

Numbers are those of the catalogue of loss classes that the checks were made from. Silent means:
the tool said that all was well, the restored server runs, and rows are not in it.
"""

import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from bench.cluster import Bench
from bench.sides import BarmanSide, CoreSide, OurSide, PgBackRestSide, Side
from pipeline.errors import PipelineError
from pipeline.postgres.lsn import PAGE_SIZE

UP = timedelta(seconds=40)
Say = Callable[[str], None]
Inject = Callable[["Scene", Side], None]


@dataclass(frozen=True)
class Seen:
    """What one tool made of one damage."""

    at_rest: str | None
    refused: str | None
    rows: str | None

    def cell(self, truth: str) -> str:
        if self.at_rest is not None:
            return "at rest"
        if self.refused is not None:
            return "at restore"
        if self.rows == truth:
            return "not seen, nothing lost"
        return f"**silent** ({self.rows} of {truth})"


@dataclass(frozen=True)
class Scene:
    """What injections need to know of the cluster that all tools backed up."""

    bench: Bench
    heap: str
    segment: str
    other: str
    control: bytes
    branch: bytes


@dataclass(frozen=True)
class Case:
    """One damage by the number of its class."""

    number: str
    title: str
    inject: Inject


def _flip(content: bytes, at: int) -> bytes:
    damaged = bytearray(content)
    damaged[at] ^= 0x10
    return bytes(damaged)


def _header(content: bytes, offset: int, size: int) -> bytes:
    """Change a number in the header of the segment's first page."""
    damaged = bytearray(content)
    for at in range(offset, offset + size):
        damaged[at] ^= 0x01
    return bytes(damaged)


def _other_timeline(content: bytes) -> bytes:
    """Every page says timeline 7 (XLogPageHeaderData: magic, flags, then the timeline)."""
    damaged = bytearray(content)
    for page in range(0, len(damaged), PAGE_SIZE):
        struct.pack_into("=I", damaged, page + 4, 7)
    return bytes(damaged)


def _segment(change: Callable[[bytes], bytes | None], *, as_archived: bool) -> Inject:
    return lambda scene, side: side.change_segment(scene.segment, change, as_archived=as_archived)


def _both(number: str, title: str, change: Callable[[bytes], bytes | None]) -> list[Case]:
    """A damage in the repository, and one that came so from the server."""
    return [
        Case(number, f"{title}, in the repository", _segment(change, as_archived=False)),
        Case(number, f"{title}, and archived so", _segment(change, as_archived=True)),
    ]


def _other_content(*, as_archived: bool) -> Inject:
    def inject(scene: Scene, side: Side) -> None:
        held: list[bytes] = []

        def look(content: bytes) -> bytes:
            held.append(content)
            return content

        side.change_segment(scene.other, look, as_archived=False)
        side.change_segment(scene.segment, lambda _: held[0], as_archived=as_archived)

    return inject


CASES = [
    Case("", "nothing: the intact repository", lambda _scene, _side: None),
    Case(
        "3",
        "one bit of a table's file in the backup",
        lambda scene, side: side.change_file(
            scene.heap, lambda content: _flip(content, len(content) // 2)
        ),
    ),
    Case(
        "4",
        "a table's file in the backup cut",
        lambda scene, side: side.change_file(
            scene.heap, lambda content: content[: len(content) // 2]
        ),
    ),
    Case(
        "6",
        "a table's file missing from the backup",
        lambda scene, side: side.change_file(scene.heap, lambda _: None),
    ),
    Case("7", "a file too many in the backup", lambda _scene, side: side.add_file("base/1/99999")),
    Case("12", "the manifest of the backup before", lambda _scene, side: side.stale_manifest()),
    Case(
        "19",
        "backup_label missing",
        lambda _scene, side: side.change_file("backup_label", lambda _: None),
    ),
    Case(
        "21",
        "pg_control after pg_resetwal",
        lambda scene, side: side.change_file("global/pg_control", lambda _: scene.control),
    ),
    Case("26", "a WAL segment missing", _segment(lambda _: None, as_archived=False)),
    *_both("27", "a WAL segment cut to half", lambda content: content[: len(content) // 2]),
    *_both("28", "a WAL segment of zeros", lambda content: bytes(len(content))),
    Case("29", "another segment's content, in the repository", _other_content(as_archived=False)),
    Case("29", "another segment's content, and archived so", _other_content(as_archived=True)),
    *_both("30", "a segment of another cluster", lambda content: _header(content, 24, 4)),
    *_both("31", "a segment of another timeline", _other_timeline),
    *_both("32", "one bit of a WAL record", lambda content: _flip(content, len(content) // 8 + 99)),
    Case(
        "34",
        "the history of a timeline that a test restore left",
        lambda scene, side: side.add_history("00000002.history", scene.branch),
    ),
]


def _copy(folder: Path, into: Path) -> None:
    """Copy with owners and modes, as ourselves: not all of it is open to the servers' owner."""
    subprocess.run(["/bin/cp", "-a", folder, into], check=True)


class Detection:
    """One cluster, a backup by each tool, and each damage put into each repository."""

    def __init__(self, bench: Bench, say: Say) -> None:
        self.bench, self.say = bench, say
        self.ours = OurSide(bench)
        self.barman = BarmanSide(bench)
        self.pgbackrest = PgBackRestSide(bench)
        self.sides: list[Side] = [CoreSide(bench), self.pgbackrest, self.barman, self.ours]
        self.raw: list[dict[str, Any]] = []

    def run(self, only: str | None = None) -> str:
        """Run every case and answer the table."""
        scene, truth = self._arrange(), self._truth()
        lines = [
            f"| class | damage | {' | '.join(side.name for side in self.sides)} |",
            "|---|---|" + "---|" * len(self.sides),
        ]
        for case in CASES:
            if only is not None and only != case.number:
                continue
            cells = []
            for side in self.sides:
                seen = self._judged(scene, case, side)
                cells.append(seen.cell(truth))
                self.raw.append(
                    {
                        "class": case.number,
                        "damage": case.title,
                        "tool": side.name,
                        "cell": cells[-1],
                        **asdict(seen),
                    }
                )
            self.say(f"  {case.number:>3} {case.title}: {', '.join(cells)}")
            lines.append(f"| {case.number} | {case.title} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def _arrange(self) -> Scene:
        bench = self.bench
        lines = [line for side in self.sides for line in side.archive_lines()]
        bench.create(lines, {"shared_buffers": "16MB", "fsync": "off"})
        self.pgbackrest.prepare()
        bench.sql("create table orders (id bigint generated always as identity, note text)")
        self._write()
        self.ours.prepare()
        self.barman.prepare()
        for _ in range(2):
            self._write()
            for side in self.sides:
                side.back_up()
        bench.archive_all()
        names = []
        for _ in range(6):
            self._write()
            names.append(bench.archive_all())
        self.ours.expect()
        bench.archive_all()
        self.barman.take_wal()
        branch = bench.sql(f"select '{names[1]}'")
        control = self._reset_control()
        heap = str(bench.sql("select pg_relation_filepath('orders')"))
        for side in self.sides:
            _copy(side.repository, bench.path("pristine") / side.repository.name)
        position = int(branch[8:16], 16) * 0x100000000 + int(branch[16:], 16) * self._segment_size
        history = f"1\t{position >> 32:X}/{position & 0xFFFFFFFF:X}\tno recovery target specified\n"
        return Scene(bench, heap, names[2], names[0], control, history.encode())

    @property
    def _segment_size(self) -> int:
        return int(self.bench.sql("select pg_size_bytes(current_setting('wal_segment_size'))"))

    def _write(self) -> None:
        self.bench.sql(
            """
            insert into orders (note)
              select md5(random()::text) || repeat('x', 200) from generate_series(1, 1000)
            """
        )

    def _truth(self) -> str:
        return str(self.bench.sql("select count(*) from orders"))

    def _reset_control(self) -> bytes:
        """What pg_control is after somebody ran pg_resetwal on a copy of the server."""
        core = self.sides[0]
        copy = self.bench.folder / "reset"
        core.restore(copy)
        for name in ("recovery.signal", "backup_label"):
            (copy / name).unlink()
        self.bench.run(self.bench.programs.postgres / "pg_resetwal", "-f", copy)
        control = (copy / "global/pg_control").read_bytes()
        shutil.rmtree(copy)
        return control

    def _judged(self, scene: Scene, case: Case, side: Side) -> Seen:
        bench = self.bench
        shutil.rmtree(side.repository)
        _copy(bench.path("pristine") / side.repository.name, side.repository)
        case.inject(scene, side)
        at_rest = side.at_rest()
        into = bench.folder / "restored"
        shutil.rmtree(into, ignore_errors=True)
        try:
            side.restore(into)
            rows = self._rows(into)
        except (PipelineError, RuntimeError, psycopg.Error) as error:
            return Seen(at_rest, f"{type(error).__name__}: {error}"[-600:], None)
        return Seen(at_rest, None, rows)

    def _rows(self, data: Path) -> str:
        """Rows of the restored server; that a query fails is seen as well."""
        with self.bench.restored(data) as conninfo:
            self.bench.promoted(conninfo, within=UP)
            with psycopg.connect(**conninfo) as connection:
                row = connection.execute("select count(note) from orders").fetchone()
        return str(row[0]) if row else "no answer"
