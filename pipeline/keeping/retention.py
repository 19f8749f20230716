"""What the plan lets go, and what a kept recovery window still needs, whatever its age.

Decided first, as plain values that can be shown; done afterwards. An interruption at any moment
leaves whole backup sets, and objects without a manifest that a later run removes.
"""

import contextlib
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.config import PipelineConfig
from pipeline.errors import ObjectMissing
from pipeline.kafka.archive import losses
from pipeline.kafka.replay import replay_journal
from pipeline.postgres.base import base_backup, chain
from pipeline.postgres.wal.lsn import Lsn, is_segment, parse_segment, segment_start
from pipeline.postgres.wal.receiver import ExpectedEnd
from pipeline.postgres.wal.segments import wal_folders
from pipeline.postgres.wal.timelines import lineage
from pipeline.repository import kinds
from pipeline.repository.sets import MANIFEST, BackupSet, Repository
from pipeline.repository.store import FolderStore, Store

_OBJECT = re.compile(r"sets/([^/]+)/([^/]+)/.+")
_STARTED = re.compile(r"-(\d{8}T\d{6})Z-")
_WAL = ("wal/", "stream/")  # what a recovery salvaged is evidence, and stays


@dataclass(frozen=True)
class Removal:
    """Something that goes as a whole: `keys` in the order in which they are deleted."""

    subject: str
    why: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Decision:
    """What goes, in the order in which it goes, and what stays past its age with the reason."""

    removals: tuple[Removal, ...]
    spared: tuple[tuple[str, str], ...]

    def lines(self) -> Iterator[str]:
        """Yield the decision for people."""
        for removal in self.removals:
            yield f"remove  {removal.subject}: {removal.why}"
        for subject, why in self.spared:
            yield f"keep    {subject}: {why}"


def decide(config: PipelineConfig, now: datetime) -> Decision:
    """Read the repository and decide; nothing is deleted.

    Raises RestoreError when the lineage of the newest base backup is unknown: what cannot be judged
    is not thinned out. A set whose manifest cannot be read stays, with all that it may need.
    """
    repository = Repository(FolderStore(config.repository.path))
    keep = {kind.name: kind.kept(config.plan) for kind in kinds.KINDS.values()}
    unread: dict[str, str] = {}
    sets = [found for kind in keep for found in repository.sets(kind, unread.__setitem__)]
    doubt = [label for label in unread if _begun(label) >= now - keep[_kind(label)]]
    bases = [found for found in sets if found.kind == base_backup.KIND]
    needed = _last_words(config, sets) | _in_doubt(sets, doubt) | _newest(sets, now)
    needed |= _evidence(config, sets, now) | _anchor(config, bases, now)
    needed = _members(sets, {s.label for s in sets if _stays(s, keep, needed, now)}) | needed
    young = [found for found in bases if found.manifest.finished >= now - keep[found.kind]]
    needed = _carriers(bases, [*young, *(b for b in bases if b.label in needed)]) | needed
    aged = [found for found in sets if found.manifest.finished < now - keep[found.kind]]
    expired = [found for found in aged if found.label not in needed]
    kept = [found for found in bases if found not in expired]
    # a set may list objects in an older set's folder: they stay as long as it does
    held = {entry.key for s in sets if s not in expired for entry in s.manifest.objects}
    return Decision(
        removals=(
            # newest first: what is left of a chain when we are interrupted is a whole one
            *(_removal(found, keep[found.kind], held) for found in reversed(expired)),
            *_orphans(repository, keep, now, held, {_kind(label) for label in doubt}),
            *(_wal(config, kept, now) if _reaches_below(kept, doubt) else ()),
        ),
        spared=(
            *((label, f"it cannot be read: {why}") for label, why in unread.items()),
            *((s.label, needed[s.label]) for s in aged if s.label in needed),
        ),
    )


def carry_out(store: Store, decision: Decision) -> int:
    """Delete what was decided and return the number of objects that went."""
    count = 0
    for removal in decision.removals:
        for key in removal.keys:
            with contextlib.suppress(ObjectMissing):  # a run beside this one had the same idea
                store.delete(key)
                count += 1
    return count


def _newest(sets: list[BackupSet], now: datetime) -> dict[str, str]:
    """The last set of a kind is kept at any age: nothing took its place.

    That of each scope and of each server or cluster: none takes the place of another. One that is
    dated in the future stays by that, and is no reason to let go of the one before it.
    """
    newest: dict[tuple[object, ...], BackupSet] = {}
    for found in sets:
        manifest = found.manifest
        if not manifest.facts.get(kinds.EVIDENCE) and not kinds.ahead(manifest, now):
            newest[found.kind, kinds.origin_of(manifest), manifest.facts.get("scope")] = found
    return {
        found.label: f"the newest {found.kind} backup" + (f" ({scope})" if scope else "")
        for (*_, scope), found in newest.items()
    }


def _evidence(config: PipelineConfig, sets: list[BackupSet], now: datetime) -> dict[str, str]:
    """What recoveries salvaged has no second copy, and an age of its own."""
    kept = config.plan.evidence
    return {
        found.label: f"{kinds.scope(found.manifest)}: the only copy"
        for found in sets
        if found.manifest.facts.get(kinds.EVIDENCE)
        and (kept is None or found.manifest.finished >= now - kept)
    }


def _last_words(config: PipelineConfig, sets: list[BackupSet]) -> dict[str, str]:
    """The newest set that holds anything of a topic, or of a group, whatever came after it."""
    made, names = replay_journal.made(config.repository.path), defaultdict[str, set[str]](set)
    like = {(s.kind, kinds.origin_of(s.manifest)): s for s in sets if s.kind in losses.KINDS}
    for one in like.values():
        found = losses.walk(losses.comparable(sets, one.manifest), made)
        for name, holder in [*found.last.items(), *found.held.items()]:
            names[holder.label].add(name)
    return {label: f"nothing newer holds {', '.join(sorted(n))}" for label, n in names.items()}


def _in_doubt(sets: list[BackupSet], doubt: list[str]) -> dict[str, str]:
    """What a set that cannot be read may build on, or may share objects of: all older ones."""
    return {
        found.label: f"{label} cannot be read, and may need it"
        for label in doubt
        for found in sets
        if found.kind == _kind(label) and found.label < label
    }


def _reaches_below(kept: list[BackupSet], doubt: list[str]) -> bool:
    """Whether a base backup that is kept starts before each one that cannot be read."""
    bases = [label for label in doubt if _kind(label) == base_backup.KIND]
    return not bases or any(found.label < min(bases) for found in kept)


def _kind(label: str) -> str:
    return label.partition("-")[0]


def _begun(label: str) -> datetime:
    """When the set of that label was begun; long ago where it does not say."""
    started = _STARTED.search(label)
    if started is None:
        return datetime.min.replace(tzinfo=UTC)
    return datetime.strptime(started[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)


def _anchor(config: PipelineConfig, bases: list[BackupSet], now: datetime) -> dict[str, str]:
    """The base backup from which the first moment of the recovery window is reached."""
    begins = now - config.plan.wal
    candidates = _on_lineage(config.repository.path, bases)
    before = [
        found
        for found in candidates
        if datetime.fromisoformat(found.manifest.facts["end_time"]) <= begins
    ]
    chosen = before[-1:] or candidates[:1]
    why = f"the recovery window from {begins:%Y-%m-%d %H:%M:%S}Z on starts from it"
    return {found.label: why for found in chosen}


def _stays(
    found: BackupSet, keep: dict[str, timedelta], needed: dict[str, str], now: datetime
) -> bool:
    return found.label in needed or found.manifest.finished >= now - keep[found.kind]


def _members(sets: list[BackupSet], staying: set[str]) -> dict[str, str]:
    """What a set of sets that stays is made of."""
    return {
        label: f"{found.label} is made of it"
        for found in sets
        if found.kind == kinds.ALL.name and found.label in staying
        for label in found.manifest.facts["members"].values()
    }


def _carriers(bases: list[BackupSet], kept: list[BackupSet]) -> dict[str, str]:
    """The base backups on which kept incremental ones build, whatever their own age."""
    known, carriers = {found.label: found for found in bases}, dict[str, str]()
    for child in kept:
        link: BackupSet | None = child
        while link is not None and (label := chain.parent_label(link)) is not None:
            carriers.setdefault(label, f"{child.label} builds on it")
            link = known.get(label)  # a parent that is gone is for the checks to tell
    return carriers


def _on_lineage(repository: Path, bases: list[BackupSet]) -> list[BackupSet]:
    """Base backups that lead to where the server is now, not to a branch that was left."""
    if not bases:
        return []
    newest = bases[-1].manifest.facts
    timelines = {found.manifest.facts["timeline"] for found in bases if _same(found, newest)}
    with contextlib.suppress(ObjectMissing):
        expected = ExpectedEnd.read(repository)
        if expected.system_identifier == newest["system_identifier"]:
            timelines.add(expected.timeline)
    ends = {span.timeline: span.end for span in lineage(max(timelines), wal_folders(repository))}

    def leads_on(found: BackupSet) -> bool:
        facts = found.manifest.facts
        if facts["timeline"] not in ends or not _same(found, newest):
            return False
        end = ends[facts["timeline"]]
        return end is None or Lsn.parse(facts["end_lsn"]) <= end

    return [found for found in bases if leads_on(found)]


def _same(found: BackupSet, facts: dict[str, object]) -> bool:
    return bool(found.manifest.facts["system_identifier"] == facts["system_identifier"])


def _removal(found: BackupSet, age: timedelta, held: set[str]) -> Removal:
    """Remove the manifest first: without it the rest is no backup set, and nobody restores it."""
    manifest = found.prefix + MANIFEST
    objects = [key for key in found.store.list(found.prefix) if key != manifest and key not in held]
    why = f"finished {found.manifest.finished:%Y-%m-%d %H:%M}Z, kept {age.days} days"
    return Removal(found.label, why, (manifest, *objects))


def _orphans(
    repository: Repository,
    keep: dict[str, timedelta],
    now: datetime,
    held: set[str],
    doubt: set[str],
) -> Iterator[Removal]:
    """Objects without a manifest, once their age says that no backup is still writing them.

    Not of a kind in `doubt`: a set that cannot be read may have taken them over.
    """
    committed = set(repository.labels())
    found: dict[tuple[str, str], list[str]] = {}
    for key in repository.store.list("sets/"):
        if (match := _OBJECT.fullmatch(key)) and match[2] not in committed and key not in held:
            found.setdefault((match[1], match[2]), []).append(key)
    for (kind, label), keys in found.items():
        if kind not in keep or kind in doubt or not _STARTED.search(label):
            continue
        if _begun(label) < now - keep[kind]:
            yield Removal(label, "has no manifest: never finished, or half removed", tuple(keys))


def _wal(config: PipelineConfig, kept: list[BackupSet], now: datetime) -> Iterator[Removal]:
    """Segments before every kept base backup. History files stay: they are small and decide all.

    Replay reads positions from the start of its base backup on, on whatever timeline, so that
    comparing positions is enough.
    """
    if not kept:
        return  # a base backup that is being taken may need any of it
    size = int(kept[-1].manifest.facts["wal_segment_size"])
    start = min(Lsn.parse(found.manifest.facts["start_lsn"]) for found in kept)
    root, begins = config.repository.path, (now - config.plan.wal).timestamp()
    going = [
        key
        for folder in _WAL
        for key in FolderStore(root).list(folder)
        if _lies_before(Path(key).name, segment_start(start, size), size)
        and (root / key).stat().st_mtime < begins
    ]
    if going:
        going.sort(key=lambda key: Path(key).name[8:])  # oldest position first
        names = [Path(key).name for key in (going[0], going[-1])]
        why = f"{start} is where the oldest base backup that is kept starts"
        yield Removal(f"{len(going)} WAL files, {' to '.join(names)}", why, tuple(going))


def _lies_before(name: str, position: Lsn, size: int) -> bool:
    """Tell segments, and the .backup and .partial files named after one, by their position."""
    if not is_segment(name[:24]) or name[24:25] not in {"", "."}:
        return False
    try:
        return parse_segment(name[:24], size).start < position
    except ValueError:
        return False  # no name that this cluster gives: not ours to judge
