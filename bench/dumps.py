"""The same damage in a dump, before pg_restore and before this suite.

pgBackRest and Barman take no dumps. What the job itself did wrong (another database, one table)
is done by pg_dump for pg_restore, and by `pipeline backup logical` for this suite.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cluster import Bench
from bench.detection import outcome
from bench.measure import Say
from bench.our_side import OurSide, complaints
from bench.scenes import CONTENT
from checks import rules
from checks.subjects import BackupRepository, LogicalBackup
from fixtures.faults import backups, dumps
from fixtures.scratch import Scratch
from pipeline.postgres.logical import logical

LIST, RESTORE = "`pg_restore --list`", "`pg_restore`"
Edit = Callable[[bytes], bytes]


@dataclass(frozen=True)
class DumpCase:
    """One damage: an edit of a dump, or words to the job that takes it.

    `packed`: pg_dump compresses as it does by default. `late`: after the digest was taken.
    """

    number: str
    title: str
    edit: Edit = lambda content: content
    late: bool = False
    packed: bool = True
    database: str = "postgres"
    table: str | None = None
    before: str | None = None


def _flipped(content: bytes) -> bytes:
    """Change a letter of a value of `orders`; nothing in the dump covers it."""
    return dumps.change_a_letter(content, b"x" * 100)


def _three_quarters(content: bytes) -> bytes:
    return content[: len(content) * 3 // 4]


def _late_and_early(number: str, title: str, edit: Edit, *, packed: bool) -> list[DumpCase]:
    """A damage in the storage, and one that was there before it was stored."""
    return [
        DumpCase(number, f"{title}, in the repository", edit, late=True, packed=packed),
        DumpCase(number, f"{title}, and stored so", edit, packed=packed),
    ]


CASES = [
    DumpCase("", "nothing: the intact dump"),
    DumpCase("", "nothing: an intact dump that is not packed", packed=False),
    *_late_and_early("55", "a dump cut", _three_quarters, packed=True),
    *_late_and_early("56", "one bit of a packed dump", dumps.break_a_packed_block, packed=True),
    *_late_and_early("57", "one bit of a dump that is not packed", _flipped, packed=False),
    DumpCase("58", "a dump of another database", database="template1"),
    DumpCase("58", "a dump of one table, by a filter left in the job", table="public.customers"),
    DumpCase("58", "a dump by an older program", dumps.by_an_older_program),
    DumpCase("58", "a file of no bytes, as a program leaves that gives up", lambda _: b""),
    DumpCase("58", "a dump after every table was emptied", before="truncate orders, customers"),
]
"""The last one leaves the tables empty."""


class Dumps:
    """One server, and a dump of its database by each side for each case."""

    def __init__(self, bench: Bench, say: Say) -> None:
        self._bench, self._say, self._ours = bench, say, OurSide(bench)
        self._numbers = iter(range(1_000))
        self.raw: list[dict[str, Any]] = []

    def run(self, only: str | None = None) -> str:
        """Run every case and answer the table."""
        bench = self._bench
        bench.create([], {"shared_buffers": "16MB", "fsync": "off"})
        bench.sql(
            "create table customers (id bigint primary key, name text)",
            "insert into customers select n, 'customer ' || n from generate_series(1, 100) n",
            "create table orders (id bigint generated always as identity primary key, note text)",
            """
            insert into orders (note)
              select md5(n::text) || repeat('x', 200) from generate_series(1, 5000) n
            """,
        )
        self._truth = self._content("postgres")
        lines = [
            f"| class | damage | {LIST} | {RESTORE} | {OurSide.name} |",
            "|---|---|---|---|---|",
        ]
        for case in CASES:
            if only not in {None, case.number}:
                continue
            cells = self._row(case)
            self._say(f"  {case.number:>3} {case.title}: {', '.join(cells)}")
            lines.append(f"| {case.number} | {case.title} | {' | '.join(cells)} |")
        return "\n".join(lines)

    def _row(self, case: DumpCase) -> list[str]:
        bench = self._bench
        if case.before is not None:
            bench.sql(case.before)
        theirs = bench.folder / "nightly.dump"
        theirs.write_bytes(case.edit(self._dumped(case)))
        said: list[str] = []
        cells = [*self._theirs(theirs, said), self._by_us(case, said)]
        self.raw.append({"class": case.number, "damage": case.title, "cells": cells, "said": said})
        return cells

    def _dumped(self, case: DumpCase) -> bytes:
        """What pg_dump makes where the job says so."""
        path = self._bench.folder / "job.dump"
        packed = [] if case.packed else ["--compress=0"]
        chosen = [] if case.table is None else [f"--table={case.table}"]
        words = ["--format=custom", f"--file={path}", *packed, *chosen, case.database]
        self._bench.run(self._program("pg_dump"), *self._bench.where, *words)
        return path.read_bytes()

    def _theirs(self, dump: Path, said: list[str]) -> list[str]:
        bench, into = self._bench, f"theirs_{next(self._numbers)}"
        program = self._program("pg_restore")
        listed = bench.run(program, "--list", dump, check=False)
        bench.sql(f"create database {into} template template0")
        words = ("--exit-on-error", f"--dbname={into}", dump)
        loaded = bench.run(program, *self._bench.where, *words, check=False)
        said += [listed.stdout[-300:], loaded.stdout[-300:]]
        came_back = "at restore" if loaded.returncode else outcome(self._content(into), self._truth)
        return ["at rest" if listed.returncode else "not seen", came_back]

    def _by_us(self, case: DumpCase, said: list[str]) -> str:
        """Have the job make the only set, damage it, look at it, and load it."""
        code, told = self._job(case)
        if code:
            said.append(told[-600:])
            return "at backup"
        self._damage(case)
        kinds = {LogicalBackup, BackupRepository}
        looking = [c for c in rules.CATALOGUE if c.on in kinds and c.component == "logical"]
        seen = list(complaints(self._bench.config, looking))
        into = f"ours_{next(self._numbers)}"
        code, told = self._ours.run("restore", "database", "--into", into, "--create")
        said += [*seen, told[-600:]]
        if seen:
            return "at rest"
        return "at restore" if code else outcome(self._content(into), self._truth)

    def _job(self, case: DumpCase) -> tuple[int, str]:
        shutil.rmtree(self._ours.repository / "sets", ignore_errors=True)
        config = self._bench.config
        postgres = config.postgres.model_copy(update={"dbname": case.database})
        self._ours.configure(config.model_copy(update={"postgres": postgres}))
        chosen = () if case.table is None else ("--table", case.table)
        done = self._ours.run("backup", "logical", *chosen)
        self._ours.prepare()
        return done

    def _damage(self, case: DumpCase) -> None:
        scratch = Scratch(LogicalBackup, self._bench.folder, self._bench.config, "")
        if not case.packed:
            dumps.change(scratch, logical.DUMP, lambda _: self._dumped(case))
        if case.late:
            path = scratch.path(backups.latest_logical(scratch).prefix + logical.DUMP)
            path.write_bytes(case.edit(path.read_bytes()))
        else:
            dumps.change(scratch, logical.DUMP, case.edit)

    def _content(self, database: str) -> str:
        with self._bench.connect(dbname=database) as connection:
            there = connection.execute("select to_regclass('orders') is not null").fetchone()
            if there != (True,):
                return "0"
            row = connection.execute(CONTENT.encode()).fetchone()
        return str(row[0]) if row else "no answer"

    def _program(self, name: str) -> Path:
        return self._bench.programs.postgres / name
