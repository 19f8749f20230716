"""The place of a data folder: a folder that can be renamed, or a mount point, which cannot.

A mount point stays where it is, and what lies in it is moved: within it, for nothing else is of
the same file system.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

UNFINISHED = ".unfinished"
_ASIDE = "damaged-"
_NOTE = "settled.json"
_FILE_SYSTEMS_OWN = "lost+found"
_OCTAL = re.compile(r"\\(\d{3})")


def is_mount_point(folder: Path) -> bool:
    """Whether something is mounted there, also by a bind mount of the same file system."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    # blanks and their like are written in octal; proc(5)
    points = {_OCTAL.sub(lambda found: chr(int(found[1], 8)), line.split()[4]) for line in lines}
    return str(folder.resolve()) in points


def work_of(into: Path) -> Path:
    """Name the folder of an unfinished restore, in the file system of its place."""
    return into / UNFINISHED if is_mount_point(into) else into.with_name(into.name + UNFINISHED)


def occupants(folder: Path) -> list[Path]:
    """What lies in a place that a restore would have to respect; nothing where there is no folder.

    In a mount point what was set aside, and what an interrupted restore left, may stay.
    """
    return [] if not folder.exists() else sorted(_respected(folder))


def _respected(folder: Path) -> Iterator[Path]:
    ours: set[str] = set()
    if is_mount_point(folder):
        ours = {_FILE_SYSTEMS_OWN, UNFINISHED, *_settled(folder)}
        ours |= {path.name for path in folder.glob(f"{_ASIDE}*")}
    return (path for path in folder.iterdir() if path.name not in ours)


def aside_of(data: Path, recovery: str) -> Path:
    """Name the folder under which a recovery keeps a damaged one."""
    name = f"{_ASIDE}{recovery}"
    return data / name if is_mount_point(data) else data.with_name(f"{data.name}.{name}")


def set_aside(data: Path, recovery: str) -> Path:
    """Keep a damaged data folder under another name, and return it. Can be repeated."""
    aside = aside_of(data, recovery)
    if not is_mount_point(data):
        return data.rename(aside)
    aside.mkdir(mode=0o700, exist_ok=True)
    shutil.copystat(data, aside)
    for path in occupants(data):
        path.rename(aside / path.name)
    return aside


def settle(data: Path, into: Path, last: str) -> None:
    """Give a restored folder its place; the file named `last` comes last and says it is whole."""
    if not is_mount_point(into):
        if into.exists():
            into.rmdir()
        data.rename(into)
        return
    order = {"global": 1, last: 2}  # without its control file no server starts
    names = sorted((path.name for path in data.iterdir()), key=lambda name: order.get(name, 0))
    (into / UNFINISHED / _NOTE).write_text(json.dumps(names))
    shutil.copystat(data, into)
    status = data.stat()
    os.chown(into, status.st_uid, status.st_gid)
    for name in names:
        (data / name).rename(into / name)
    (into / UNFINISHED / _NOTE).unlink()  # from here on nothing is taken back


def withdraw(into: Path) -> None:
    """Take back what an interrupted `settle` moved into a mount point."""
    for name in _settled(into):
        path = into / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _settled(into: Path) -> list[str]:
    """Names that an unfinished restore moved, or was about to."""
    try:
        names: list[str] = json.loads((into / UNFINISHED / _NOTE).read_text())
    except (OSError, ValueError):
        return []  # nothing is moved before the note is whole
    return names
