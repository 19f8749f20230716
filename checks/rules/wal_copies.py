"""Segments that two writers archived: archive_command and the receiver must agree."""

import filecmp
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from random import Random

from checks.check import Observation, check
from checks.subjects import WalArchive
from fixtures.faults import files
from fixtures.scratch import Damage, Scratch


@check(
    "wal.copies-agree",
    on=WalArchive,
    severity="blocker",
    advice="One of the two is damaged, or two servers share this repository. See which one "
    "`pytest checks/ -k wal` names besides, keep the sound one, and take a base backup.",
)
def copies_agree(archive: WalArchive) -> Iterator[Observation]:
    """A segment or history file that lies in the repository twice is the same, byte by byte."""
    copies = defaultdict[str, list[Path]](list)
    for path in archive.segments():
        copies[path.name].append(path)
    for folder in archive.folders:
        for path in folder.glob("????????.history"):
            copies[path.name].append(path)
    for name, (first, *others) in copies.items():
        differ = [path for path in others if not filecmp.cmp(first, path, shallow=False)]
        told = f"{archive.key(first)} and {', '.join(map(archive.key, differ))} differ"
        yield Observation(name, told if differ else None)


@copies_agree.detects
def streamed_copy_differs(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """The receiver's copy of a segment was damaged where nothing else reads it."""
    name = rng.choice(scratch.copy.required())
    copy = files.copy_as(scratch, f"wal/{name}", f"stream/{int(name[:8], 16)}/{name}")
    return Damage(name, files.flip_bit(scratch, copy.subject, rng).what, says=" differ")


@copies_agree.detects
def another_history_of_that_number(scratch: Scratch[WalArchive], rng: Random) -> Damage:
    """Two servers were promoted from one archive, and both took the next number."""
    name = f"{scratch.copy.end.timeline:08X}.history"
    copy = files.copy_as(scratch, f"wal/{name}", f"stream/{scratch.copy.end.timeline}/{name}")
    scratch.path(copy.subject).write_text(f"1\t0/{rng.randrange(1 << 24):X}\tno target\n")
    return Damage(name, "the streamed one names another place", says=" differ")
