"""Which file holds which table, followed through the WAL from commit to commit.

TRUNCATE, VACUUM FULL and ALTER TABLE give a table a new file, and no record says which table a new
file is for. The order of locks, creations and drops does (seen with PostgreSQL 18):

- a new relation is locked under the number of its file: first where it holds rows, afterwards
  where it is an index;
- a rewrite fills a new relation, swaps the files and drops the relation: its number is among the
  `dropped stats` of the commit, its file stays;
- TRUNCATE makes files without such locks, one for each that it drops, in the same order.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.postgres.history.changes import Committed


@dataclass
class Table:
    """A table of the inventory, or one made `later`, of which only the number is known."""

    oid: int
    schema: str
    name: str
    rows: int | None
    parent: int | None = None
    later: bool = False

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name

    @property
    def spellings(self) -> set[str]:
        """Its name, with and without the schema, plain and as SQL quotes it."""
        names, schemas = (
            {each, '"' + each.replace('"', '""') + '"'} for each in (self.name, self.schema)
        )
        return names | {f"{schema}.{name}" for schema in schemas for name in names}


class Effect(NamedTuple):
    """What a transaction did to one table; rows is None where their number is unknown."""

    oid: int
    kind: str
    rows: int | None


class TableFiles:
    """The tables of one database and their files, as of the last commit that was followed."""

    def __init__(self, inventory: Iterable[Mapping[str, Any]]) -> None:
        self.tables: dict[int, Table] = {}
        self.files: dict[int, int] = {}
        for told in inventory:
            table = Table(told["oid"], told["schema"], told["name"], told["rows"], told["parent"])
            self.tables[table.oid] = table
            if told["relfilenode"] is not None:
                self.files[told["relfilenode"]] = table.oid
        self.lost: list[Table] = []  # tables whose new file the last commit did not give away

    def commit(self, done: Committed) -> list[Effect]:
        """Follow the tables through a commit and say what it did to each."""
        changes = done.changes
        successors = _successors(done, self.files)
        effects = [*self._endings(done), *self._definitions(done)]
        self._add_later_tables(done)
        owners = self.files | {new: self.files[old] for old, new in successors.items()}
        self._replace_files(done, successors)
        rewritten = set(successors.values()) & done.gone
        for (file, kind), rows in changes.rows.items():
            if (oid := owners.get(file)) is not None and file not in rewritten:
                effects.append(Effect(oid, kind, rows))
                if file not in done.dropped:
                    self._count(oid, kind, rows)
        return effects

    def _endings(self, done: Committed) -> list[Effect]:
        """Tables that lost their file, or their existence, with the rows that they held."""
        changes = done.changes
        if changes.drops_database:
            return [Effect(oid, "drop", self.tables[oid].rows) for oid in self.files.values()]
        ended = [self.files[file] for file in done.dropped if file in self.files]
        roots = [oid for oid in done.gone if oid in self.tables and oid not in ended]
        effects = [Effect(oid, "drop", None) for oid in sorted(roots)]
        for oid in ended:
            kind = "rewrite"
            if oid in done.gone:
                kind = "drop"
            elif oid in changes.truncated:
                kind = "truncate"
            effects.append(Effect(oid, kind, self.tables[oid].rows))
        return effects

    def _definitions(self, done: Committed) -> list[Effect]:
        """Tables that were locked against readers and changed, but kept their file."""
        ended = {self.files[file] for file in done.dropped if file in self.files} | done.gone
        # VACUUM takes the same lock to give back empty pages at the end of a table
        vacuumed = {self.files.get(file) for file in done.changes.shrunk}
        altered = (done.changes.locked & done.invalidated & self.tables.keys()) - ended
        return [Effect(oid, "alter", None) for oid in sorted(altered) if oid not in vacuumed]

    def _add_later_tables(self, done: Committed) -> None:
        for file in _new_tables(done):
            if file not in done.gone and file not in self.tables:
                name = f"table {file}, made after the backup"
                self.tables[file] = Table(file, "", name, 0, later=True)
                self.files[file] = file

    def _replace_files(self, done: Committed, successors: dict[int, int]) -> None:
        self.lost = []
        for file in [*self.files] if done.changes.drops_database else done.dropped:
            if (oid := self.files.pop(file, None)) is None:
                continue
            if oid in done.changes.truncated or oid in done.gone:
                self.tables[oid].rows = 0
            if file in successors:
                self.files[successors[file]] = oid
            elif oid not in done.gone and not done.changes.drops_database:
                self.lost.append(self.tables[oid])

    def _count(self, oid: int, kind: str, rows: int) -> None:
        table = self.tables[oid]
        if table.rows is not None and kind in {"insert", "delete"}:
            table.rows = max(0, table.rows + (rows if kind == "insert" else -rows))


def _new_tables(done: Committed) -> list[int]:
    """Files of new relations that hold rows, in order of creation, without their TOAST tables.

    A TOAST table is made right after its table and right before its own index.
    """
    made = [file for _, file in done.changes.created if file in done.changes.locked]
    first = [file in done.changes.locked_first for file in made]
    kept = []
    for place, file in enumerate(made):
        toast = first[max(place - 1, 0) : place + 2] == [True, True, False] and place > 0
        if first[place] and not toast and file not in done.dropped:
            kept.append(file)
    return kept


def _successors(done: Committed, files: Mapping[int, int]) -> dict[int, int]:
    """New file by old file; empty where the transaction did too much at once to tell."""
    replaced = [file for file in done.dropped if file in files and files[file] not in done.gone]
    rewritten = [file for file in _new_tables(done) if file in done.gone]
    if rewritten:
        before, after = replaced, rewritten
    else:
        made = [file for _, file in done.changes.created]
        before = [file for file in done.dropped if file not in made]
        kept = [file for file in made if file not in done.dropped]
        after = [file for file in kept if file not in done.changes.locked]
    if len(before) != len(after):
        return {}
    return {old: new for old, new in zip(before, after, strict=True) if old in replaced}
