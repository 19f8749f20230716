"""A full base backup and the incremental ones that were taken on it, each by name and digest."""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from pipeline.errors import BackupError, ObjectMissing, PipelineError, RestoreError, StoreError
from pipeline.postgres.base import server_manifest
from pipeline.postgres.wal.lsn import Lsn
from pipeline.repository.sets import MANIFEST, BackupSet, Repository
from pipeline.repository.store import StoredObject, read

PARENT = "parent"
"""The fact that makes a base backup incremental: label, digest and start of the one before it."""
COMPARED = ("system_identifier", "timeline", "start_lsn", "end_lsn")
"""The facts of a link that prove it to belong below another."""
_SINCE = 170000  # server_version_num
_FROM = re.compile(r"^INCREMENTAL FROM LSN: (\S+)$", re.MULTILINE)


def parent_label(backup: BackupSet) -> str | None:
    """Name the set without which this one cannot be restored; None for a full backup."""
    stated = backup.manifest.facts.get(PARENT)
    return None if stated is None else str(stated["label"])


def digest(backup: BackupSet) -> str:
    """SHA-256 of a manifest as it is stored: it covers all objects, because it lists theirs."""
    return hashlib.sha256(read(backup.store, backup.prefix + MANIFEST)).hexdigest()


def links(backup: BackupSet) -> list[BackupSet]:
    """All sets that a restore of this one combines: the full one first, this one last.

    Raises RestoreError naming the set that is missing, was exchanged or does not belong there.
    """
    found = [backup]
    while (below := parent(found[0])) is not None:
        found.insert(0, below)  # ends: each starts before the one that it carries
    return found


def parent(backup: BackupSet) -> BackupSet | None:
    """The set on which this one was taken, proven to be that one; None below a full backup.

    Raises RestoreError as `links` does.
    """
    stated = backup.manifest.facts.get(PARENT)
    if stated is None:
        return None
    needed = str(stated["label"])
    try:
        found = Repository(backup.store).get(needed)
    except ObjectMissing as error:
        raise RestoreError(f"{backup.label} builds on {needed}, which is gone: {error}") from error
    except BackupError as error:
        raise RestoreError(f"{backup.label} builds on {needed}, which is bad: {error}") from error
    if problem := _mismatch(backup, found, stated):
        raise RestoreError(f"{backup.label} builds on {needed}, but {problem}")
    return found


def broken(backup: BackupSet) -> str | None:
    """Tell why the set cannot be restored for want of a link or of an object of one, or None.

    Of an object its size is compared: to hash all of it is what `pipeline verify` is for.
    """
    try:
        found = links(backup)
    except RestoreError as error:
        return str(error)
    lacking = (
        told for link in found for entry in link.manifest.objects if (told := _lacks(link, entry))
    )
    return next(lacking, None)


def _lacks(link: BackupSet, entry: StoredObject) -> str | None:
    try:
        with link.store.open(entry.key) as stream:
            size = stream.seek(0, os.SEEK_END)
    except StoreError as error:
        return f"{link.label}: {error}"
    if size != entry.size:
        return f"{link.label}: {entry.key} has {size} bytes, expected {entry.size}"
    return None


def _mismatch(child: BackupSet, parent: BackupSet, stated: dict[str, Any]) -> str | None:
    if (found := digest(parent)) != stated["manifest"]:
        return f"its manifest has sha256 {found}, expected {stated['manifest']}: it was exchanged"
    ours, its = child.manifest.facts, parent.manifest.facts
    if problem := _untold(parent) or _untold(child):
        return problem
    for name in ("system_identifier", "timeline"):
        if its[name] != ours[name]:
            return f"its {name} is {its[name]}, expected {ours[name]}"
    end, start = Lsn.parse(its["end_lsn"]), Lsn.parse(ours["start_lsn"])
    if end > start:
        return f"it ends at {end}, after {start}, where {child.label} starts: the order is wrong"
    if its["start_lsn"] != stated["start_lsn"]:
        return f"it starts at {its['start_lsn']}, expected {stated['start_lsn']}"
    return None


def _untold(link: BackupSet) -> str | None:
    """Tell what its manifest must say before it can be compared, and does not."""
    untold = [name for name in COMPARED if name not in link.manifest.facts]
    return f"the manifest of {link.label} does not tell {', '.join(untold)}" if untold else None


def refuse_foreign_label(data: Path, link: BackupSet) -> None:
    """Raise RestoreError unless the backup_label of an unpacked link agrees with its manifest.

    Half of an incremental backup that passes for a full one is a folder of stubs.
    """
    stated = link.manifest.facts.get(PARENT)
    expected = None if stated is None else stated["start_lsn"]
    try:
        said = _FROM.search((data / "backup_label").read_text())
    except OSError as error:
        raise RestoreError(f"{link.label}: cannot read its backup_label: {error}") from error
    found = said[1] if said else None
    if found != expected:
        raise RestoreError(
            f"{link.label}: its backup_label is that of {_kind(found)}, expected {_kind(expected)}"
        )


def _kind(lsn: str | None) -> str:
    return "a full backup" if lsn is None else f"an incremental backup since {lsn}"


def parent_for(repository: Repository, server: dict[str, Any]) -> BackupSet:
    """Find the newest base backup on which an incremental one of this server can be taken.

    Raises BackupError when the server cannot do it, or no backup leads to where the server is.
    """
    if server["server_version_num"] < _SINCE:
        version = server["server_version"]
        raise BackupError(f"incremental backups need PostgreSQL 17, the server is {version}")
    if not server["summarize_wal"]:
        raise BackupError(
            "incremental backups need summarize_wal = on, and the server has it off: ALTER SYSTEM "
            "SET summarize_wal = on, pg_reload_conf(), and take a full backup to build on"
        )
    refusals: list[str] = []

    def unreadable(label: str, why: str) -> None:
        refusals.append(f"  {label}: {why}")

    for found in reversed(list(repository.sets("base", unreadable))):
        problem = _does_not_lead(found, server)
        if problem is None:
            return found
        refusals.append(f"  {found.label}: {problem}")
    raise BackupError(
        f"no base backup in {repository.store.where} can be built on, take a full one:\n"
        + ("\n".join(refusals) or "  there is none")
    )


def _does_not_lead(found: BackupSet, server: dict[str, Any]) -> str | None:
    facts = found.manifest.facts
    if problem := _untold(found):
        return problem
    for name in ("system_identifier", "timeline"):
        if facts[name] != server[name]:
            return f"its {name} is {facts[name]}, that of the server {server[name]}"
    if Lsn.parse(facts["end_lsn"]) > Lsn.parse(server["inventory_lsn"]):
        return f"it ends at {facts['end_lsn']}, the server stands at {server['inventory_lsn']}"
    if server_manifest.of(found) is None:
        return f"it was taken without {server_manifest.OBJECT}"
    return broken(found)


def still_there(parent: BackupSet, stated: dict[str, Any]) -> None:
    """Raise BackupError when the parent went, or was exchanged, while the backup was taken."""
    try:
        found = digest(parent)
    except PipelineError as error:
        raise BackupError(f"{parent.label} went while a backup was built on it: {error}") from (
            error
        )
    if found != stated["manifest"]:
        raise BackupError(f"{parent.label} was exchanged while a backup was built on it")


def as_fact(parent: BackupSet) -> dict[str, str]:
    """What an incremental backup states about the one before it."""
    facts = parent.manifest.facts
    return {
        "label": parent.label,
        "manifest": digest(parent),
        "start_lsn": facts["start_lsn"],
    }
