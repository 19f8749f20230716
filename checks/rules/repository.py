"""The folder that everything is kept in: its structure, who can reach it, its room."""

import shutil
import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

from checks.check import Observation, check
from checks.subjects import BackupRepository
from fixtures.faults import backups, files
from fixtures.scratch import Damage, Scratch
from pipeline.config import DAY
from pipeline.postgres.base import base_backup, chain
from pipeline.postgres.wal.lsn import Lsn
from pipeline.postgres.wal.receiver import ExpectedEnd
from pipeline.repository.kinds import KINDS
from pipeline.repository.sets import BackupSet, total_size

FOLDERS = ("sets", "wal")
KEEPS = 2  # the next backup must fit beside the newest before anything is removed


@check(
    "repository.has-its-folders",
    on=BackupRepository,
    severity="blocker",
    advice="Is the volume mounted? An empty mount point looks like a repository without backups: "
    "mount it before the next backup runs.",
)
def has_its_folders(repository: BackupRepository) -> Iterator[Observation]:
    """The repository is there, with its folders for backup sets and WAL, and neither is empty."""
    for name in FOLDERS:
        folder = repository.path / name
        if not folder.is_dir():
            found = "is not there" if not folder.exists() else "is not a folder"
            yield Observation(name, f"{folder} {found}")
        else:
            filled = any(path.is_file() for path in folder.rglob("*"))
            yield Observation(name, None if filled else f"{folder} is empty")


@has_its_folders.detects
def volume_not_mounted(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """The mount point without its volume."""
    name = rng.choice(FOLDERS)
    shutil.rmtree(scratch.path(name))
    return Damage(name, "the folder is gone", says="is not there")


@has_its_folders.detects
def folder_emptied(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """A clean-up that removed files and left the folders."""
    name = rng.choice(FOLDERS)
    for path in [path for path in scratch.path(name).rglob("*") if path.is_file()]:
        path.unlink()
    return Damage(name, "every file below it is gone", says="is empty")


@has_its_folders.detects
def file_in_place_of_a_folder(scratch: Scratch[BackupRepository], _rng: Random) -> Damage:
    """A copy of one segment to `wal` instead of into it."""
    folder = scratch.path("wal")
    (content,) = islice((path.read_bytes() for path in sorted(folder.iterdir())), 1)
    shutil.rmtree(folder)
    folder.write_bytes(content)
    return Damage("wal", "it became a file", says="is not a folder")


@check(
    "repository.closed-to-others",
    on=BackupRepository,
    advice="A base backup holds every row. Close the repository (chmod o-rwx) to all but the "
    "accounts that write and restore backups, and find out who read it meanwhile.",
)
def closed_to_others(repository: BackupRepository) -> Iterator[Observation]:
    """No account outside of owner and group can enter the repository or write anywhere in it."""
    mode = repository.path.stat().st_mode
    yield Observation(".", f"its mode is {mode & 0o7777:o}" if mode & stat.S_IRWXO else None)
    for path in sorted(repository.path.rglob("*")):
        mode = path.lstat().st_mode
        loose = mode & stat.S_IWOTH and not stat.S_ISLNK(mode)
        key = path.relative_to(repository.path).as_posix()
        yield Observation(key, f"its mode is {mode & 0o7777:o}" if loose else None)


@closed_to_others.detects
def repository_opened(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """Mode 755, because a job could not read something."""
    return files.change_mode(scratch, ".", rng.choice((0o005, 0o001, 0o007))).told_as("its mode is")


@closed_to_others.detects
def object_writable_for_all(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """A volume whose mount options set the modes."""
    keys = sorted(scratch.copy.sets.store.list())
    return files.change_mode(scratch, rng.choice(keys), stat.S_IWOTH).told_as("its mode is")


@check(
    "repository.room-for-the-next-backup",
    on=BackupRepository,
    advice="Extend the volume, or remove the oldest backup sets; the next backup will "
    "fail, and WAL piles up on the server when its archive is full.",
)
def room_for_the_next_backup(repository: BackupRepository) -> Iterator[Observation]:
    """The volume has room for another backup of each kind, with as much again to spare."""
    kept = defaultdict[str, list[BackupSet]](list)
    for backup in repository.sets:
        kept[backup.kind].append(backup)
    free = shutil.disk_usage(repository.path).free
    for kind, sets in kept.items():
        needed = KEEPS * _next(sets)
        tight = f"{free:,} bytes are free, {needed:,} are needed after {sets[-1].label}"
        yield Observation(kind, tight if free < needed else None)


def _next(sets: list[BackupSet]) -> int:
    """Bytes of the next backup of a kind: it is like the newest, or like the newest full one."""
    full = [backup for backup in sets if backup.manifest.facts.get(chain.PARENT) is None]
    return max(_stored(backup) for backup in (*full[-1:], sets[-1]))


def _stored(backup: BackupSet) -> int:
    """Bytes that a set added: what an archive of topics goes on from lies with an older set."""
    own = (entry for entry in backup.manifest.objects if entry.key.startswith(backup.prefix))
    return total_size(own)


@room_for_the_next_backup.detects
def database_outgrew_the_volume(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """The last backup was as large as what is left."""
    free = shutil.disk_usage(scratch.repository).free
    return _grow(scratch, free // KEEPS * rng.randrange(2, 100)).told_as("are needed after")


@room_for_the_next_backup.detects_in_a_chain
def next_full_backup_outgrew_the_volume(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """Increments fit for weeks, until a full backup is due."""
    full, *_ = backups.links(scratch)
    free = shutil.disk_usage(scratch.repository).free
    damage = _grow(scratch, free // KEEPS * rng.randrange(2, 100), full)
    backups.built_on_what_is_there(scratch)
    return damage.told_as("are needed after")


@room_for_the_next_backup.detects
def no_margin_left(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """It would fit once, and nothing beside it."""
    free = shutil.disk_usage(scratch.repository).free
    return _grow(scratch, free * rng.randrange(60, 90) // 100).told_as("are needed after")


def _grow(scratch: Scratch[BackupRepository], size: int, backup: BackupSet | None = None) -> Damage:
    backup = backup or backups.latest_base(scratch)
    entry, *others = backup.manifest.model_dump()["objects"]
    backups.reseal(scratch, backup, objects=[{**entry, "size": size}, *others])
    return Damage(backup.kind, f"the last backup took {size:,} bytes")


@check(
    "repository.room-for-the-plan",
    on=BackupRepository,
    severity="normal",
    advice="The plan keeps more than this volume can hold: extend it, or keep backups and WAL for "
    "fewer days ([plan] in pipeline.toml), before a backup fails for want of room.",
)
def room_for_the_plan(repository: BackupRepository) -> Iterator[Observation]:
    """The volume has room for all that the plan keeps at one time: its backups, and the WAL."""
    free = shutil.disk_usage(repository.path).free
    needed = 0
    for kind, each in KINDS.items():
        kept = each.kept(repository.plan)
        sets = list(repository.sets.sets(kind))
        if not sets:
            continue
        due = max(0, kept // each.every + 1 - len(sets))
        if due:  # one of them may be a full one, whatever the newest is
            needed += _next(sets) + (due - 1) * _stored(sets[-1])
        tight = f"{free:,} bytes are free, {needed:,} are needed for {due} more, and those above"
        yield Observation(kind, tight if needed > free else None)
    if (growth := _wal_to_come(repository)) is not None:
        needed += growth
        tight = f"{free:,} bytes are free, {needed:,} are needed for {growth:,} more of WAL in the "
        tight += f"{repository.plan.wal.days} days that it is kept, and those above"
        yield Observation("wal", tight if needed > free else None)


def _wal_to_come(repository: BackupRepository) -> int | None:
    """Bytes by which the WAL grows until it is all that the plan keeps; None before a base backup.

    Its pace is that from the oldest base backup inside of the plan to the expected end, by their
    own times: those of files are of the last copy. A first day counts as a whole one.
    """
    end, kept = ExpectedEnd.read(repository.path), repository.plan.wal
    bases = [
        (base.manifest.started, written)
        for base in repository.sets.sets(base_backup.KIND)
        if base.manifest.facts["system_identifier"] == end.system_identifier
        and (written := end.lsn - Lsn.parse(base.manifest.facts["start_lsn"])) >= 0
    ]
    if not bases:
        return None
    since, written = next((one for one in bases if one[0] >= end.time - kept), bases[-1])
    held = [_sizes(repository.path, place) for place in ("wal", "stream")]
    copies = sum(map(bool, held))  # archived by the server, and streamed
    whole = int(copies * written * ((kept + DAY) / max(end.time - since, DAY)))
    return max(0, whole - sum(map(sum, held)))


def _sizes(repository: Path, place: str) -> list[int]:
    return [path.stat().st_size for path in (repository / place).rglob("*") if path.is_file()]


@room_for_the_plan.detects
def volume_holds_few_days(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """The database grew: the next backup fits, and those of a week do not."""
    free = shutil.disk_usage(scratch.repository).free
    return _grow(scratch, free // rng.randrange(3, 6)).told_as("more, and those above")


@room_for_the_plan.detects
def plan_grew_beyond_the_volume(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """Logical backups of a size that fit once, and are to be kept for two weeks."""
    free = shutil.disk_usage(scratch.repository).free
    return _grow(scratch, free // rng.randrange(3, 12), backups.latest_logical(scratch)).told_as(
        "more, and those above"
    )


@room_for_the_plan.detects
def wal_of_a_week_outgrew_the_volume(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """A new job rewrites a table every hour: backups stay as small as they were."""
    end, free = ExpectedEnd.read(scratch.repository), shutil.disk_usage(scratch.repository).free
    written = free // rng.randrange(2, 7)
    replace(end, lsn=Lsn(end.lsn + written)).write(scratch.repository)
    return Damage("wal", f"{written:,} bytes of it were written in one day", says="more of WAL in")
