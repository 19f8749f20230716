"""Which blocks an incremental backup brings, and which of those that changed it does not bring.

The server takes them from its own summaries of WAL; what is said here is read from the WAL.
"""

import re
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import zstandard

from checks.increments import header_of
from checks.pages import SEGMENT_BLOCKS, changed_file
from pipeline.errors import BackupError
from pipeline.postgres.base_backup import archives, tablespace_of
from pipeline.postgres.waldump import Record
from pipeline.repository import BackupSet

_REFERENCE = re.compile(rb"blkref #\d+: rel (\d+)/(\d+)/(\d+)(?: fork (\w+))? blk (\d+)")
_TRUNCATE = re.compile(rb"(\S+) to (\d+) blocks")
_FILE = re.compile(
    rb"(?:base/(?P<db>\d+)|global|pg_tblspc/(?P<space>\d+)/[^/]+/(?P<its_db>\d+))"
    rb"/(?P<relation>\d+)(?:_(?P<fork>\w+))?(?:\.(?P<segment>\d+))?"
)
_MAIN, _DEFAULT, _GLOBAL = b"main", b"1663", b"1664"


class Fork(NamedTuple):
    """A part of a relation, in the numbers by which WAL names it."""

    tablespace: bytes
    database: bytes
    relation: bytes
    fork: bytes


@dataclass
class Brought:
    """One increment: a bit for each block below `length`, and changed ones that have none."""

    name: str
    first: int
    length: int
    held: bytearray
    missing: set[int] = field(default_factory=set)

    def lacks(self, block: int) -> bool:
        """Whether it should hold that block of its relation, and does not."""
        at = block - self.first
        return 0 <= at < self.length and not self.held[at // 8] & 1 << at % 8


def brought(backup: BackupSet) -> dict[Fork, list[Brought]]:
    """Every increment of a backup set. Raises BackupError where one cannot be read."""
    found = defaultdict[Fork, list[Brought]](list)
    for entry in archives(backup):
        oid = tablespace_of(entry)
        above = f"pg_tblspc/{oid}/" if oid else ""
        with (
            backup.store.open(entry.key) as stored,
            zstandard.ZstdDecompressor().stream_reader(stored) as plain,
            tarfile.open(fileobj=plain, mode="r|") as archive,
        ):
            for member in archive:
                name = above + member.name.removeprefix("./")
                opened = archive.extractfile(member) if changed_file(name) else None
                if opened is None:
                    continue
                try:
                    length, numbers = header_of(opened)
                except ValueError as error:
                    raise BackupError(f"{backup.label}: {name}: {error}") from error
                fork, first = _named(changed_file(name) or "")
                found[fork].append(Brought(name, first, length, _bits(length, numbers)))
    return found


def compare(increments: dict[Fork, list[Brought]], records: Iterable[Record]) -> None:
    """Note every block that a record changed, and that an increment of its file lacks.

    What is cut off a file is forgotten: it may come again as blocks that no record mentions.
    """
    for record in records:
        for space, database, relation, fork, number in _REFERENCE.findall(record.rest):
            block = int(number)
            for one in increments.get(Fork(space, database, relation, fork or _MAIN), ()):
                if one.lacks(block):
                    one.missing.add(block)
        if record.op == b"TRUNCATE" and (cut := _TRUNCATE.match(record.rest)):
            _forget(increments, cut[1].decode(), int(cut[2]))


def _forget(increments: dict[Fork, list[Brought]], path: str, length: int) -> None:
    whole, _ = _named(path)
    for fork, several in increments.items():
        if fork[:3] == whole[:3]:
            kept = length if fork.fork == _MAIN else 0
            for one in several:
                one.missing -= {block for block in one.missing if block >= kept}


def _named(path: str) -> tuple[Fork, int]:
    """What WAL calls a file, and the number of its first block."""
    found = _FILE.fullmatch(path.encode())
    if found is None:
        raise BackupError(f"{path} is not the file of a relation")
    database = found["db"] or found["its_db"]
    space = found["space"] or (_DEFAULT if database else _GLOBAL)
    fork = Fork(space, database or b"0", found["relation"], found["fork"] or _MAIN)
    return fork, int(found["segment"] or 0) * SEGMENT_BLOCKS


def _bits(length: int, numbers: tuple[int, ...]) -> bytearray:
    held = bytearray(max(length, *numbers, 0) // 8 + 1)
    for number in numbers:
        held[number // 8] |= 1 << number % 8
    return held


def every(increments: dict[Fork, list[Brought]]) -> Iterator[Brought]:
    """All increments of a backup set."""
    return chain.from_iterable(increments.values())
