"""Backup sets as they lie in the repository: objects, manifests, age."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random

from checks.check import Observation, check
from checks.links import of_every_link
from checks.recency import recent
from checks.subjects import BackupRepository, BaseBackup
from fixtures.faults import backups, files
from fixtures.scratch import Damage, Scratch
from pipeline.errors import PipelineError, RestoreError
from pipeline.postgres.base import base_backup, chain
from pipeline.postgres.wal.lsn import Lsn
from pipeline.repository.sets import MANIFEST

PLANNED = {base_backup.KIND: timedelta(hours=26)}
"""Kinds of the backup plan and how old the newest may be: its interval and two hours to run."""
ABANDONED = timedelta(days=1)  # no backup runs for longer
LABEL_TIME = "%Y%m%dT%H%M%SZ"
FACTS: dict[str, type] = {
    "system_identifier": str,
    "server_version_num": int,
    "wal_segment_size": int,
    "timeline": int,
    "start_lsn": str,
    "end_lsn": str,
    "end_time": str,
    "data_checksums": bool,
    "database": str,
    "database_oid": int,
    "tables": list,
}
"""What restore, replay and find need to know of a base backup before they touch it."""


@check(
    "backup.objects-match-manifest",
    on=BaseBackup,
    severity="blocker",
    advice="This backup cannot be restored: take a new one now, keep the damaged one for the "
    "inquiry, and look at the storage below it.",
)
def objects_match_manifest(base: BaseBackup) -> Iterator[Observation]:
    """Every object of the newest base backup, and of those below it, is as its manifest says."""
    try:
        for link in base.links():
            yield from _objects(link)
    except RestoreError as error:
        yield Observation(base.manifest.label, str(error))
    else:
        yield Observation(base.manifest.label, None)


def _objects(base: BaseBackup) -> Iterator[Observation]:
    for entry in base.manifest.objects:
        found = base.contents.objects.get(entry.key)
        if found is None:
            problem = "missing"
        elif found.size != entry.size:
            problem = f"expected {entry.size} bytes, found {found.size}"
        elif found.sha256 != entry.sha256:
            problem = f"expected sha256 {entry.sha256}, found {found.sha256}"
        else:
            problem = None
        yield Observation(entry.key, problem)


@objects_match_manifest.detects
def object_bit_flipped(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """Bit rot in storage."""
    return files.flip_bit(scratch, _object(scratch, rng), rng).told_as("expected sha256")


@objects_match_manifest.detects
def object_truncated(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A copy that ended early."""
    return files.truncate(scratch, _object(scratch, rng), rng).told_as(" bytes, found")


@objects_match_manifest.detects
def object_longer(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """Two writers under one name."""
    return files.append(scratch, _object(scratch, rng), rng).told_as(" bytes, found")


@objects_match_manifest.detects
def object_missing(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A lifecycle rule that expired the object and not its manifest."""
    return files.drop(scratch, _object(scratch, rng)).told_as("missing")


def _object(scratch: Scratch[BaseBackup], rng: Random) -> str:
    return rng.choice(scratch.copy.manifest.objects).key


@check(
    "backup.facts-complete",
    on=BaseBackup,
    advice="A restore would have to guess what is missing: take a new backup with this version.",
)
@of_every_link
def facts_complete(base: BaseBackup) -> Iterator[Observation]:
    """The manifest tells everything that a restore must know, and it makes sense together."""
    for name, kind in FACTS.items():
        value = base.facts.get(name)
        told = isinstance(value, kind) and value not in ("", [])
        yield Observation(name, None if told else f"expected {kind.__name__}, found {value!r}")
    yield Observation("end_lsn", _order(base))
    ends_first = base.manifest.finished < base.manifest.started
    yield Observation("finished", "it is earlier than the start" if ends_first else None)
    if (stated := base.facts.get(chain.PARENT)) is not None:
        lacking = [name for name in ("label", "manifest", "start_lsn") if not stated.get(name)]
        problem = f"it does not tell: {', '.join(lacking)}" if lacking else None
        yield Observation(chain.PARENT, problem)


def _order(base: BaseBackup) -> str | None:
    try:
        start, end = (Lsn.parse(str(base.facts.get(name))) for name in ("start_lsn", "end_lsn"))
    except ValueError as error:
        return str(error)
    return None if start < end else f"expected a position after start_lsn {start}, found {end}"


@facts_complete.detects
def fact_missing(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """A manifest of a tool that did not note it."""
    return backups.drop_fact(scratch, rng.choice(sorted(FACTS))).told_as("found None")


@facts_complete.detects
def ends_before_it_starts(scratch: Scratch[BaseBackup], rng: Random) -> Damage:
    """Positions of two different backups in one manifest."""
    start = Lsn.parse(scratch.copy.facts["start_lsn"])
    return backups.change_fact(
        scratch, "end_lsn", str(Lsn(start - rng.randrange(1, start)))
    ).told_as("a position after start_lsn")


@check(
    "backup.manifests-sealed",
    on=BackupRepository,
    severity="blocker",
    advice="Do not repair a manifest by hand: it is the only witness of its objects. Restore "
    "from the set before it (`--without`), and take a new backup.",
)
def manifests_sealed(repository: BackupRepository) -> Iterator[Observation]:
    """The manifest of every backup set is whole, is its own, and agrees with its seal."""
    for label in repository.sets.labels():
        try:
            repository.sets.get(label)
        except PipelineError as error:
            yield Observation(label, str(error))
        else:
            yield Observation(label, None)


@manifests_sealed.detects
def manifest_bit_flipped(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """Bit rot in the list of what should be there; anywhere but in the white space of JSON."""
    backup = backups.latest_base(scratch)
    content = scratch.path(backup.prefix + MANIFEST).read_bytes()
    start = content.index(b'"system_identifier"')
    done = files.flip_bit(scratch, backup.prefix + MANIFEST, rng, start=start, stop=start + 30)
    return Damage(backup.label, done.what, says="manifest.json: ")


@manifests_sealed.detects
def manifest_truncated(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """A full disk while the manifest was written by something less careful than us."""
    backup = backups.latest_base(scratch)
    return Damage(
        backup.label,
        files.truncate(scratch, backup.prefix + MANIFEST, rng).what,
        says="not a manifest",
    )


@manifests_sealed.detects
def manifest_of_another_set(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """A manifest copied into the folder of another backup."""
    backup = backups.latest_base(scratch)
    other = f"{backup.kind}-{_days_ago(rng.randrange(2, 7))}-0000"
    done = files.copy_as(
        scratch, backup.prefix + MANIFEST, f"sets/{backup.kind}/{other}/{MANIFEST}"
    )
    return Damage(other, done.what, says="the manifest is that of")


@check(
    "backup.no-foreign-objects",
    on=BackupRepository,
    severity="normal",
    advice="Find out who wrote it. What an interrupted backup left may be removed; anything else "
    "tells of a second writer in this repository.",
)
def no_foreign_objects(repository: BackupRepository) -> Iterator[Observation]:
    """Nothing lies among the backup sets that no manifest lists."""
    listed = {
        key
        for backup in repository.sets
        for key in (backup.prefix + MANIFEST, *(entry.key for entry in backup.manifest.objects))
    }
    committed = {key.rpartition("/")[0] for key in listed if key.endswith("/" + MANIFEST)}
    for key in repository.sets.store.list("sets/"):
        running = key.rpartition("/")[0] not in committed and not _is_old(key)
        foreign = key not in listed and not running
        yield Observation(key, "no manifest lists it" if foreign else None)


def _is_old(key: str) -> bool:
    """Whether the set of that key began so long ago that its backup cannot be running."""
    parts = key.split("/")
    try:
        begun = datetime.strptime(parts[2].split("-")[1], LABEL_TIME).replace(tzinfo=UTC)
    except (IndexError, ValueError):
        return True  # not a label of ours
    return datetime.now(UTC) - begun > ABANDONED


def _days_ago(days: int) -> str:
    return f"{datetime.now(UTC) - timedelta(days=days):{LABEL_TIME}}"


@no_foreign_objects.detects
def stray_object(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """Something that another program keeps in the folder of a set."""
    backup = backups.latest_base(scratch)
    entry = rng.choice(backup.manifest.objects)
    return files.copy_as(
        scratch, entry.key, f"{backup.prefix}part-{rng.randrange(100)}.tar"
    ).told_as("no manifest lists it")


@no_foreign_objects.detects
def interrupted_backup_left_behind(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """What a backup left that was killed days ago."""
    entry = rng.choice(backups.latest_base(scratch).manifest.objects)
    label = f"base-{_days_ago(rng.randrange(2, 9))}-dead"
    return files.copy_as(scratch, entry.key, f"sets/base/{label}/base.tar.zst").told_as(
        "no manifest lists it"
    )


@check(
    "backup.newest-is-recent",
    on=BackupRepository,
    severity="blocker",
    advice="Look at the log of the last backup job, then run `pipeline backup`: until it is done, "
    "a recovery replays more WAL than the objective has time for.",
)
def newest_is_recent(repository: BackupRepository) -> Iterator[Observation]:
    """The newest backup of each planned kind is not older than the plan allows."""
    for kind, allowed in PLANNED.items():
        yield from recent(repository.sets, kind, allowed)


@newest_is_recent.detects
def last_night_was_skipped(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """The job did not run."""
    return _age(scratch, timedelta(hours=26, seconds=rng.randrange(1, 86_400))).told_as(
        " old, planned are at most"
    )


@newest_is_recent.detects
def clock_was_wrong(scratch: Scratch[BackupRepository], rng: Random) -> Damage:
    """A backup from the future stays the newest for ever."""
    return _age(scratch, -timedelta(minutes=rng.randrange(10, 600))).told_as("a clock is wrong")


@newest_is_recent.detects
def no_backup_at_all(scratch: Scratch[BackupRepository], _rng: Random) -> Damage:
    """Retention removed the last one, or it was never taken."""
    backup = backups.latest_base(scratch)
    files.drop(scratch, backup.prefix + MANIFEST)
    return Damage(
        backup.kind, f"the only set, {backup.label}, lost its manifest", says="there is none"
    )


def _age(scratch: Scratch[BackupRepository], by: timedelta) -> Damage:
    manifest = backups.latest_base(scratch).manifest
    backups.reseal(scratch, started=manifest.started - by, finished=manifest.finished - by)
    return Damage(manifest.kind, f"its newest set became {by} older")
