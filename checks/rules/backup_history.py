"""Base backups of which the archive tells: PostgreSQL leaves a note of each that ended."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

from checks.check import Observation, check
from checks.subjects import BackupRepository
from fixtures.faults import backups, files
from fixtures.scratch import Damage, Scratch
from pipeline.errors import BackupError, ObjectMissing
from pipeline.postgres.base import base_backup
from pipeline.postgres.wal.lsn import Lsn
from pipeline.repository.sets import MANIFEST

_LABEL = re.compile(rf"(?m)^LABEL: ({base_backup.KIND}-(\d{{8}}T\d{{6}}Z)-\S+)$")
_STOP = re.compile(r"(?m)^STOP WAL LOCATION: (\S+)")
_TIME = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class _Note:
    """What `wal/*.backup` says of one base backup."""

    label: str
    begun: datetime
    stop: str


def _notes(repository: BackupRepository) -> Iterator[_Note]:
    for path in sorted((repository.path / "wal").glob("*.backup")):
        text = path.read_text(errors="replace")
        label, stop = _LABEL.search(text), _STOP.search(text)
        if label and stop:  # else one of another program, as for a new standby
            begun = datetime.strptime(label[2], _TIME).replace(tzinfo=UTC)
            yield _Note(label[1], begun, stop[1])


@check(
    "backup.none-vanished",
    on=BackupRepository,
    severity="normal",
    advice="Was the job killed at its very end? Then take a new backup. Else this set is gone "
    "before its time: find out what removes sets besides `pipeline retain`.",
)
def none_vanished(repository: BackupRepository) -> Iterator[Observation]:
    """Every base backup that ended, by the archive's own notes, is here for as long as planned."""
    yield Observation("wal", None if (repository.path / "wal").is_dir() else "there is no archive")
    for note in _notes(repository):
        if datetime.now(UTC) - note.begun > repository.plan.base:
            continue
        try:
            manifest = repository.sets.get(note.label).manifest
        except ObjectMissing:
            yield Observation(note.label, "the archive tells of it, and it is not here")
        except BackupError as error:
            yield Observation(note.label, str(error))
        else:
            end = str(manifest.facts.get("end_lsn"))
            other = f"the server says that it ended at {note.stop}, its manifest at {end}"
            yield Observation(note.label, None if end == note.stop else other)


@none_vanished.detects
def set_removed_early(scratch: Scratch[BackupRepository], _rng: Random) -> Damage:
    """A lifecycle rule of the store that knows nothing of plans."""
    backup = backups.latest_base(scratch)
    for key in list(backup.store.list(backup.prefix)):
        files.drop(scratch, key)
    return Damage(backup.label, "the whole set is gone", says="it is not here")


@none_vanished.detects
def manifest_removed(scratch: Scratch[BackupRepository], _rng: Random) -> Damage:
    """A copy of the repository that left out small files."""
    backup = backups.latest_base(scratch)
    files.drop(scratch, backup.prefix + MANIFEST)
    return Damage(backup.label, "its manifest is gone", says="it is not here")


@none_vanished.detects
def backup_that_ended_elsewhere(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """pg_backup_stop was called twice, and the manifest is of the call that failed."""
    backup = backups.latest_base(scratch)
    end = Lsn.parse(backup.manifest.facts["end_lsn"])
    backups.change_fact(scratch, "end_lsn", str(Lsn(end + rng.randrange(1, 1 << 20))))
    return Damage(
        backup.label, "its manifest names another end", says="the server says that it ended at"
    )
