"""A dump as it lies in the repository, judged by pg_restore, which reads every byte of it."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.errors import ObjectMissing
from pipeline.postgres.logical import logical
from pipeline.postgres.server.tools import Tools
from pipeline.repository.sets import BackupSet
from pipeline.repository.store import HashedStream

WHOLE = "database"  # the scope of a dump of everything
GROWS = 10  # a packed dump takes so many times its size as a database, indexes included
_BY_PROGRAM = re.compile(r"Dumped by pg_dump version: (\d+)")
_FROM_SERVER = re.compile(r"Dumped from database version: (\d+)")
_OF_DATABASE = re.compile(r"dbname: (.*)")
# "3370; 0 16391 TABLE DATA shop orders postgres", and no name is quoted that has blanks
_ENTRY = re.compile(r"(?m)^\d+; \d+ \d+ (TABLE .*)$")


@dataclass(frozen=True)
class Dump:
    """The dump's own table of contents, and what went wrong while it was read to its end."""

    listing: str
    trouble: str | None

    @property
    def by_program(self) -> int | None:
        """Major version of the pg_dump that wrote it."""
        return _number(_BY_PROGRAM, self.listing)

    @property
    def from_server(self) -> int | None:
        """Major version of the server that it was taken from."""
        return _number(_FROM_SERVER, self.listing)

    @property
    def database(self) -> str | None:
        found = _OF_DATABASE.search(self.listing)
        return found[1].strip() if found else None

    def holds(self, schema: str, name: str, *, rows: bool) -> bool:
        """Whether a table is in the dump: its definition, or its rows."""
        place = f"{schema} {name}".replace("\n", " ").replace("\r", " ")  # as pg_restore lists it
        return f"TABLE {'DATA ' if rows else ''}{place}" in self._entries

    @cached_property
    def _entries(self) -> set[str]:
        """What an entry may be of: all of its line up to any blank, the owner's name aside."""
        return {
            line[: blank.start()]
            for line in _ENTRY.findall(self.listing)
            for blank in re.finditer(" ", line)
        }


def read_through(backup: BackupSet, tools: Tools) -> Dump:
    """List the dump, then have it turned into SQL that nobody reads.

    The list alone proves nothing: it comes from the first bytes of the file.
    """
    listing, trouble = _pg_restore(backup, tools, "--list")
    _, unreadable = _pg_restore(backup, tools, "--file=/dev/null")
    return Dump(listing, trouble or unreadable)


def _pg_restore(backup: BackupSet, tools: Tools, *options: str) -> tuple[str, str | None]:
    """Feed it the object: the repository is closed to the account that it runs as."""
    with (
        backup.store.open(f"{backup.prefix}{logical.DUMP}") as stored,
        subprocess.Popen(
            [tools.path("pg_restore"), *options],
            stdin=stored,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env={"LC_ALL": "C"},
            **tools.identity(),
        ) as process,
    ):
        output, told = process.communicate()
    trouble = told.decode(errors="replace").strip()
    failed = trouble or f"pg_restore ended with {process.returncode}"
    return output.decode(errors="replace"), failed if process.returncode or trouble else None


def sizes_and_digests(backup: BackupSet) -> dict[str, tuple[int, str]]:
    """Read every object of the set that is there, once."""
    found = {}
    for entry in backup.manifest.objects:
        if entry.key in set(backup.store.list(entry.key)):
            with backup.store.open(entry.key) as stored:
                stream = HashedStream(stored)
                digest = stream.hexdigest()
                found[entry.key] = (stream.size, digest)
    return found


def copy_out(backup: BackupSet, name: str, into: Path) -> None:
    """Copy an object of the set to a file; ObjectMissing when the set has none of that name."""
    if not any(entry.key == backup.prefix + name for entry in backup.manifest.objects):
        raise ObjectMissing(backup.prefix + name, backup.store.where)
    with backup.store.open(backup.prefix + name) as stored, into.open("wb") as copy:
        shutil.copyfileobj(stored, copy, 1 << 20)


def _number(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return int(found[1]) if found else None
