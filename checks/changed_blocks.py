"""Which blocks an incremental backup brings, and which of those that changed it does not bring.

The server takes them from its own summaries of WAL; what is said here is read from the WAL.
"""

import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

from checks.contents import files_in
from checks.increments import header_of, refuse_unread
from checks.pages import SEGMENT_BLOCKS, changed_file
from pipeline.errors import BackupError
from pipeline.postgres.base import server_manifest
from pipeline.postgres.base.base_backup import archives
from pipeline.postgres.history.waldump import Record
from pipeline.repository.sets import BackupSet

_REFERENCE = re.compile(rb"blkref #\d+: rel (\d+)/(\d+)/(\d+)(?: fork (\w+))? blk (\d+)")
_TRUNCATE = re.compile(rb"(\S+) to (\d+) blocks")
_GONE = re.compile(rb"; rels:((?: [^\s;]+)+)")  # of what a COMMIT or ABORT removes
_FILE = re.compile(
    rb"(?:base/(?P<db>\d+)|global|pg_tblspc/(?P<space>\d+)/[^/]+/(?P<its_db>\d+))"
    rb"/(?P<relation>\d+)(?:_(?P<fork>\w+))?(?:\.(?P<segment>\d+))?"
)
_MAIN, _DEFAULT, _GLOBAL = b"main", b"1663", b"1664"
_FORKS = (_MAIN, b"fsm", b"vm", b"init")


class Fork(NamedTuple):
    """A part of a relation, in the numbers by which WAL names it."""

    tablespace: bytes
    database: bytes
    relation: bytes
    fork: bytes


class Blocks:
    """Numbers of blocks in one file, a bit for each: every block of a large one may change."""

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._bits = bytearray()
        for number in numbers:
            self.add(number)

    def add(self, number: int) -> None:
        """Put a number in."""
        self._bits.extend(bytes(max(0, number // 8 + 1 - len(self._bits))))
        self._bits[number // 8] |= 1 << number % 8

    def cut(self, length: int) -> None:
        """Forget every number from there on."""
        del self._bits[-(-length // 8) :]
        if length % 8 and len(self._bits) > length // 8:
            self._bits[-1] &= (1 << length % 8) - 1

    def __contains__(self, number: int) -> bool:
        return number // 8 < len(self._bits) and bool(self._bits[number // 8] & 1 << number % 8)

    def __iter__(self) -> Iterator[int]:
        return (number for number in range(8 * len(self._bits)) if number in self)

    def __len__(self) -> int:
        return sum(byte.bit_count() for byte in self._bits)


@dataclass
class Brought:
    """One increment: the blocks that it holds, and changed ones below its length that it lacks.

    Blocks have the numbers of its file, which begins with block `first` of the relation.
    """

    name: str
    first: int
    length: int
    held: Blocks
    missing: Blocks = field(default_factory=Blocks)

    def lacks(self, block: int) -> bool:
        """Whether it should hold that block of its file, and does not."""
        return block < self.length and block not in self.held


Increments = dict[Fork, dict[int, Brought]]
"""Those of one backup set, by the part of a relation and the number of its file."""


def brought(backup: BackupSet) -> Increments:
    """Every increment of a backup set. Raises BackupError where one could not be read."""
    found = defaultdict[Fork, dict[int, Brought]](dict)
    for entry in archives(backup):
        with backup.store.open(entry.key) as stored:
            for name, opened in files_in(stored, entry):
                if (whole := changed_file(name)) is not None:
                    fork, segment = _named(whole)
                    found[fork][segment] = _read(f"{backup.label}: {name}", name, segment, opened)
    refuse_unread(backup, _listed(backup), {one.name for one in every(found)})
    return found


def _read(where: str, name: str, segment: int, opened: IO[bytes]) -> Brought:
    try:
        header = header_of(opened)
    except ValueError as error:
        raise BackupError(f"{where}: {error}") from error
    return Brought(name, segment * SEGMENT_BLOCKS, header.least, Blocks(header.numbers))


def _listed(backup: BackupSet) -> bytes:
    with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
        path = Path(folder, server_manifest.NAME)
        server_manifest.extract(backup, path)
        return path.read_bytes()


def compare(increments: Increments, records: Iterable[Record]) -> None:
    """Note every block that a record changed, and that the increment of its file lacks.

    What is cut off a file is forgotten: it may come again as blocks that no record mentions.
    """
    for record in records:
        for space, database, relation, fork, number in _REFERENCE.findall(record.rest):
            segment, block = divmod(int(number), SEGMENT_BLOCKS)
            files = increments.get(Fork(space, database, relation, fork or _MAIN), {})
            if (one := files.get(segment)) is not None and one.lacks(block):
                one.missing.add(block)
        _forget_what_it_cut(increments, record)


def forget(increments: Increments, records: Iterable[Record]) -> None:
    """Forget what these records cut off or removed while the backup ran: it was not there to read.

    Replay of them cuts it off again, whatever stands there.
    """
    for record in records:
        _forget_what_it_cut(increments, record)


def _forget_what_it_cut(increments: Increments, record: Record) -> None:
    if record.op == b"TRUNCATE" and (cut := _TRUNCATE.match(record.rest)):
        _forget(increments, cut[1], int(cut[2]))
    elif record.rmgr == b"Transaction" and (gone := _GONE.search(record.rest)):
        for path in gone[1].split():
            _forget(increments, path, 0)


def _forget(increments: Increments, path: bytes, length: int) -> None:
    whole, _ = _named(path.decode())
    for fork in _FORKS:
        kept = length if fork == _MAIN else 0
        for one in increments.get(Fork(*whole[:3], fork), {}).values():
            one.missing.cut(max(0, kept - one.first))


def _named(path: str) -> tuple[Fork, int]:
    """What WAL calls a file, and its number among those of its relation."""
    found = _FILE.fullmatch(path.encode())
    if found is None:
        raise BackupError(f"{path} is not the file of a relation")
    database = found["db"] or found["its_db"]
    space = found["space"] or (_DEFAULT if database else _GLOBAL)
    fork = Fork(space, database or b"0", found["relation"], found["fork"] or _MAIN)
    return fork, int(found["segment"] or 0)


def every(increments: Increments) -> Iterator[Brought]:
    """All increments of a backup set."""
    return (one for files in increments.values() for one in files.values())
