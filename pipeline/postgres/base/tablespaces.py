"""Tablespaces of a server's own: where they are, and how a restore puts them in place.

A tablespace is a folder of the major version, `PG_18_…`, inside of a location that may be a mount
point. So nothing here moves or removes a location, only what lies in it.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from pipeline.errors import PlaceTaken
from pipeline.postgres.server.tools import Tools
from pipeline.repository.sets import BackupSet

FACT = "tablespace_locations"
LINKS = "pg_tblspc"
MAP = "tablespace_map"
NOTE = "unfinished_restore.json"
_UNFINISHED = ".unfinished-"

_LOCATIONS = """
    SELECT oid::text, spcname::text AS name, pg_tablespace_location(oid) AS location
      FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid
"""


def locations(connection: Connection[Any]) -> list[dict[str, str]]:
    """Oid, name and location of every tablespace that is not in the data folder."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_LOCATIONS).fetchall()


def original_places(backup: BackupSet) -> dict[str, Path]:
    """Where the tablespaces of a backup were, by oid."""
    known = backup.manifest.facts.get(FACT, [])
    return {entry["oid"]: Path(entry["location"]) for entry in known}


@contextmanager
def staging(repository: Path, tools: Tools) -> Iterator[Path]:
    """A folder beside the backup sets; what an earlier, killed backup left in its own is removed.

    The lock on each folder tells: it ends with its owner.
    """
    for left in repository.glob(f"{_UNFINISHED}base-*"):
        with locked(left) as abandoned:
            if abandoned:
                shutil.rmtree(left)
    folder = repository / f"{_UNFINISHED}base-{os.urandom(8).hex()}"
    folder.mkdir(mode=0o700)
    tools.own(folder)
    try:
        with locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Hold a folder, and tell whether nobody else does; the hold ends with its owner."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def homes(places: Mapping[str, Path], into: Path) -> dict[str, Path]:
    """Where the tablespaces of an unfinished restore are kept: in the same file systems."""
    return {oid: place / f"{_UNFINISHED}{into.name}" for oid, place in places.items()}


def refuse_occupied(places: Mapping[str, Path], major: int) -> None:
    """Raise PlaceTaken for a location that holds a tablespace of this major version already."""
    if len(set(places.values())) < len(places):
        raise PlaceTaken(f"two tablespaces would share a location: {sorted(places.values())}")
    for oid, place in places.items():
        if found := sorted(place.glob(f"PG_{major}_*")):
            raise PlaceTaken(
                f"tablespace {oid}: {found[0]} exists: a restore never writes into existing data"
            )


def refuse_misplaced(places: Mapping[str, Path], data: Path, major: int) -> None:
    """Raise PlaceTaken where a restore into `data` would meet data of another server.

    Can be asked while the server runs: what its own links name will be put aside with it.
    """
    if not (data / LINKS).is_dir():
        return  # nothing tells which tablespaces were its own
    own = {link.resolve() for link in (data / LINKS).glob("*")}
    for oid, place in places.items():
        if place.resolve().is_relative_to(data.resolve()):
            raise PlaceTaken(f"tablespace {oid}: {place} is inside of the data folder {data}")
        found = sorted(place.glob(f"PG_{major}_*"))
        if found and place.resolve() not in own:
            raise PlaceTaken(
                f"tablespace {oid}: {found[0]} exists, and the server in {data} does not use it: "
                "nothing was touched. Move it away if it is an old copy"
            )


def keep_left(places: Mapping[str, Path], major: int, name: str) -> None:
    """Keep what a lost data folder's server left in its locations, under another name.

    No link tells that it was that server's: the caller knows the locations from its backup, and
    that the folder which had the links is gone. Can be repeated after an interruption.
    """
    for place in places.values():
        for found in sorted(place.glob(f"PG_{major}_*")):
            _put_aside(found, place / name)


def kept(places: Mapping[str, Path], name: str) -> dict[str, str]:
    """What lies in locations under that name, by oid."""
    return {oid: str(place / name) for oid, place in places.items() if (place / name).exists()}


def settle(data: Path, into: Mapping[str, tuple[Path, Path]]) -> None:
    """Move tablespaces from their unfinished homes to their places, and have the data name them.

    The note in the data folder tells `withdraw` which of them were ours, by device and inode.
    """
    moves = [
        (source, place / source.name)
        for home, place in into.values()
        for source in home.glob("PG_*")
    ]
    marks = {str(target): _identity(source) for source, target in moves}
    (data / NOTE).write_text(json.dumps(marks))
    for oid, (_, place) in into.items():
        point(data, oid, place)
    for source, target in moves:
        if target.exists():
            raise PlaceTaken(f"{target} appeared meanwhile: it was not touched")
        source.rename(target)
    for home, _ in into.values():
        home.rmdir()


def withdraw(data: Path) -> None:
    """Take back what `settle` moved for a data folder that never got its name."""
    note = data / NOTE
    try:
        marks: dict[str, list[int]] = json.loads(note.read_text())
    except (OSError, ValueError):
        return  # nothing was moved before the note was whole
    for name, identity in marks.items():
        if Path(name).exists() and _identity(Path(name)) == identity:
            shutil.rmtree(name)


def point(data: Path, oid: str, place: Path) -> None:
    """Make the data folder's link to a tablespace name another place."""
    link = data / LINKS / oid
    link.unlink(missing_ok=True)
    link.symlink_to(place)


def set_aside(data: Path, name: str) -> dict[str, str]:
    """Keep a damaged server's tablespaces under another name, in their own file systems.

    The data folder's links follow, so that it stays whole. Can be repeated after an interruption.
    """
    kept = {}
    for link in sorted((data / LINKS).glob("*")):
        if not link.is_symlink():
            continue  # in place, it moves with the data folder
        place = link.readlink()
        aside = place if place.name == name else place / name
        for found in sorted(aside.parent.glob(_version_folders(data))):
            _put_aside(found, aside)
        if aside.exists():
            point(data, link.name, aside)
            kept[link.name] = str(aside)
    return kept


def _put_aside(found: Path, aside: Path) -> None:
    aside.mkdir(mode=0o700, exist_ok=True)
    shutil.copystat(found, aside)
    status = found.stat()
    os.chown(aside, status.st_uid, status.st_gid)
    found.rename(aside / found.name)


def _version_folders(data: Path) -> str:
    """Other major versions keep theirs in the same location, and are not ours to move."""
    try:
        return f"PG_{(data / 'PG_VERSION').read_text().strip()}_*"
    except OSError:  # a damaged folder
        return "PG_*"


def _identity(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_dev, status.st_ino]
