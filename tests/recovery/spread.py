"""A server whose tables lie in tablespaces, and two backups of it, one on the other."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fixtures.stacks.versions import major
from pipeline.postgres.base import tablespaces
from pipeline.repository.sets import BackupSet
from tests.recovery.chained import summarize
from tests.recovery.history import Source

STATE = """
    select (select md5(string_agg(t::text, ',' order by n)) from early t),
           (select md5(string_agg(t::text, ',' order by n)) from late t)
"""
_NUMBERS = itertools.count(1)


@dataclass
class Spread:
    """One tablespace of the full backup, one made after it; what the tables held at each backup."""

    source: Source
    places: dict[str, Path] = field(default_factory=dict)
    states: dict[str, Any] = field(default_factory=dict)

    def make(self, name: str) -> None:
        place = self.source.stack.folder / "scratch" / f"{name}-{next(_NUMBERS)}"
        place.mkdir()
        self.source.tools.own(place)
        self.source.run(
            f"create tablespace {name} location '{place}'",
            f"create table {name} tablespace {name} as "
            "select n, repeat(md5(n::text), 20) as body from generate_series(1, 500) n",
        )
        self.places[name] = place

    def back_up(self, name: str, *, incremental: bool = False) -> BackupSet:
        self.states[name] = self.source.run(STATE)
        return self.source.back_up(name, incremental=incremental)

    @property
    def backup(self) -> BackupSet:
        return self.source.backups["increment"]

    def oid(self, name: str) -> str:
        known = self.backup.manifest.facts[tablespaces.FACT]
        return str(next(entry["oid"] for entry in known if entry["name"] == name))


def spread_over(source: Source) -> Spread:
    chains = major() >= 17
    if chains:
        summarize(source)
    spread = Spread(source)
    spread.make("early")
    source.run("create table late as select 1 as n")
    spread.back_up("full")
    source.run("drop table late", "update early set body = 'changed' where n = 7")
    spread.make("late")
    spread.back_up("increment", incremental=chains)  # a second full one where there are none
    return spread
