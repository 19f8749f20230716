"""A chain of base backups of a real server, and links of it exchanged behind good seals.

What each damage returns is the refusal, as a pattern; the damages are those of PostgreSQL's own
test of pg_combinebackup (005_integrity), and those that only a manifest of ours can have.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fixtures.stacks.versions import since
from pipeline.postgres.base import chain
from pipeline.repository.sets import MANIFEST, BackupSet, Manifest, Repository
from pipeline.repository.store import FolderStore
from tests.recovery.history import Source, replaced


@dataclass(frozen=True)
class Chained:
    """A full backup, two incremental ones on it, and the rows that each of them must hold."""

    source: Source
    states: dict[str, Any]

    @property
    def repository(self) -> Path:
        return self.source.config.repository.path

    def label(self, name: str) -> str:
        return self.source.backups[name].label


def summarize(source: Source) -> None:
    since(17, "an incremental backup")
    source.run("alter system set summarize_wal = on", "select pg_reload_conf()")


@dataclass(frozen=True)
class Copy:
    """A copy of the repository whose sets may be exchanged, sealed as if they had been so."""

    chained: Chained
    folder: Path

    @property
    def repository(self) -> Repository:
        return Repository(FolderStore(self.folder))

    def get(self, name: str) -> BackupSet:
        return self.repository.get(self.chained.label(name))

    def state(self, name: str, **facts: object) -> None:
        """Change facts of a manifest, with a good seal."""
        manifest = self.get(name).manifest
        body = manifest.model_dump() | {"facts": {**manifest.facts, **facts}}
        self._seal(name, Manifest.model_validate(body))

    def build(self, name: str, on: str, **facts: object) -> None:
        """Have a set state another parent, with the right digest of it."""
        self.state(name, parent=chain.as_fact(self.get(on)) | facts)

    def _seal(self, name: str, manifest: Manifest) -> None:
        path = self.folder / self.get(name).prefix / MANIFEST
        replaced(path, manifest.sealed())


def missing(copy: Copy) -> str:
    (copy.folder / copy.get("first").prefix / MANIFEST).unlink()
    return "builds on {first}, which is gone"


def damaged_manifest(copy: Copy) -> str:
    replaced(copy.folder / copy.get("first").prefix / MANIFEST, b"{}")
    return "builds on {first}, which is bad: .*not a manifest"


def damaged_object(copy: Copy) -> str:
    key = copy.get("full").manifest.objects[0].key
    replaced(copy.folder / key, (copy.folder / key).read_bytes()[:-1])
    return "{full}/base.tar.zst: expected"


def exchanged(copy: Copy) -> str:
    copy.state("first", database="another")
    return "builds on {first}, but its manifest has sha256 .* it was exchanged"


def of_another_server(copy: Copy) -> str:
    copy.state("first", system_identifier="7")
    copy.build("second", on="first")
    return "{second} builds on {first}, but its system_identifier is 7, expected"


def of_another_timeline(copy: Copy) -> str:
    copy.state("first", timeline=2)
    copy.build("second", on="first")
    return "{second} builds on {first}, but its timeline is 2, expected 1"


def in_the_wrong_order(copy: Copy) -> str:
    facts = copy.get("first").manifest.facts
    copy.state("first", end_lsn="F/0")
    copy.build("second", on="first")
    assert facts["end_lsn"] != "F/0"
    return "{second} builds on {first}, but it ends at F/0, after .* the order is wrong"


def left_out(copy: Copy) -> str:
    copy.build("second", on="full")
    return "{second}: its backup_label is that of an incremental backup since .*, expected"


def hidden_from_us(copy: Copy) -> str:
    """Only pg_combinebackup still sees that the middle of the chain was taken out."""
    since = copy.get("second").manifest.facts["parent"]["start_lsn"]
    copy.state("full", start_lsn=since, end_lsn=since)
    copy.build("second", on="full")
    return "pg_combinebackup cannot combine {full}, {second}: .*starts at LSN"


def passing_for_a_full_one(copy: Copy) -> str:
    copy.state("first", parent=None)
    copy.build("second", on="first")
    return "{first}: its backup_label is that of an incremental .*, expected a full backup"


FOREIGN = [
    *(missing, damaged_manifest, damaged_object, exchanged, of_another_server),
    *(of_another_timeline, in_the_wrong_order, left_out, hidden_from_us, passing_for_a_full_one),
]
