"""Kinds of backup sets: what a set of each covers, and which set may be taken for the newest."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline.config import DAY, PlanConfig
from pipeline.errors import BackupError, ConfigError, NoBackup, ObjectMissing
from pipeline.repository.sets import BackupSet, Manifest, Repository

LATEST = "latest"
"""The label that stands for the newest set that may be taken."""
EVIDENCE = "evidence"
"""The fact that names the recovery which salvaged the set: it is no backup."""
INCOMPLETE = "incomplete"
"""The fact that names topics which the set does not hold whole, each with the reason."""
ACCEPTED = "accepted"
"""The fact that names what was removed on purpose, by the operator's word."""
SKEW = timedelta(minutes=5)
"""By how much clocks may differ before a set counts as one from the future."""


@dataclass(frozen=True)
class Kind:
    """What is known of all sets of a kind.

    `every` is its schedule. `origin` names the facts that say what was backed up: sets in which
    they differ do not take each other's place. `whole` are the scopes of a set of everything; older
    versions wrote none.
    """

    name: str
    every: timedelta
    origin: tuple[str, ...]
    whole: frozenset[str | None] = frozenset({None})

    def kept(self, plan: PlanConfig) -> timedelta:
        """How long the plan keeps a set of this kind."""
        found: timedelta = getattr(plan, self.name)
        return found


Origin = Callable[[], Mapping[str, str]]
"""Asks a server or cluster for the facts that its own backups have."""
SYSTEM, DATABASE, CLUSTER = "system_identifier", "database", "cluster_id"
BASE = Kind("base", DAY, (SYSTEM,))
LOGICAL = Kind("logical", DAY, (SYSTEM, DATABASE), frozenset({None, "database"}))
TOPICS = Kind("topics", 7 * DAY, (CLUSTER,), frozenset({None, "all topics"}))
OFFSETS = Kind("offsets", DAY, (CLUSTER,))
SCHEMAS = Kind("schemas", DAY, (CLUSTER,))
SLOTS = Kind("slots", DAY, (SYSTEM, DATABASE), frozenset({None, "whole state"}))
ALL = Kind("all", DAY, (SYSTEM, CLUSTER))
"""A set of sets: it names its members by label, and stores nothing else."""
KINDS = {kind.name: kind for kind in (BASE, LOGICAL, SLOTS, TOPICS, OFFSETS, SCHEMAS, ALL)}


def is_whole(manifest: Manifest) -> bool:
    """Whether the set stands for all that its kind covers, and is a backup."""
    kind = KINDS.get(manifest.kind)
    scope = manifest.facts.get("scope")
    return not manifest.facts.get(EVIDENCE) and (kind is None or scope in kind.whole)


def scope(manifest: Manifest) -> str | None:
    """What the set is of, where that is less than everything, or None."""
    if manifest.facts.get(EVIDENCE):
        return f"what {manifest.facts[EVIDENCE]} salvaged"
    return None if is_whole(manifest) else f"of {manifest.facts['scope']} only"


def origin_of(manifest: Manifest) -> tuple[str | None, ...]:
    """What the set is a backup of; None where it does not say."""
    kind = KINDS.get(manifest.kind)
    told = (manifest.facts.get(name) for name in (kind.origin if kind else ()))
    return tuple(None if value is None else str(value) for value in told)


def holds(manifest: Manifest, topic: str) -> bool:
    """Whether an archive holds the whole topic."""
    facts = manifest.facts
    named = topic in facts.get("topics", {}) and topic not in facts.get(INCOMPLETE, {})
    return named and facts.get("limit") is None


def ahead(manifest: Manifest, now: datetime | None = None) -> str | None:
    """Tell that the set is dated in the future: it would stay the newest until then."""
    beyond = manifest.finished - (now or datetime.now(UTC))
    return f"it ends {beyond} from now: a clock is wrong" if beyond > SKEW else None


def newest(
    repository: Repository,
    kind: str,
    *,
    topics: Collection[str] = (),
    origin: Origin = dict,
    without: Collection[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> BackupSet:
    """Find the newest backup of everything, or of `topics` where some are named.

    Never what a recovery salvaged, a set of less, one from the future, or one of another `origin`
    (which gives facts of its kind with their values, and is asked once a set is there), and none
    of `without`, whatever state that is in. `say` hears which newer sets are passed over, and why.
    Where only chosen topics were ever archived, the set of most of them is taken.

    Raises NoBackup when no set will do, BackupError when the manifest of a newer one cannot be
    read: what it holds is unknown, and it must not pass for none.
    """
    passed, parts, labels = list[str](), list[BackupSet](), repository.labels(kind)
    of = origin() if labels else {}
    for label in reversed(labels):
        if label in without:
            passed.append(f"passed over {label}: it is named by --without")
            continue
        try:
            manifest = (found := repository.get(label)).manifest
        except ObjectMissing:
            continue  # retention takes the manifest first
        except BackupError as error:
            raise BackupError(
                f"{error}; it is newer than any set that can be read: say which one by its label"
            ) from error
        if (why := _unfit(manifest, topics, of)) is None:
            for line in passed:
                say(line)
            return found
        passed.append(f"passed over {label}: {why}")
        if kind == TOPICS.name and why == _narrow(manifest):
            parts.append(found)
    if not topics and (most := max(parts, key=_topics, default=None)) is not None:
        return most
    what = f"backup of {kind}" + (f" that holds {', '.join(sorted(topics))}" if topics else "")
    raise NoBackup(what, repository.store.where, passed)


def _unfit(manifest: Manifest, topics: Collection[str], origin: Mapping[str, str]) -> str | None:
    facts = manifest.facts
    if facts.get(EVIDENCE):
        return f"it is {scope(manifest)}"
    for name, expected in origin.items():
        if (told := facts.get(name)) is not None and str(told) != expected:
            return f"its {name} is {told}, expected {expected}"
    if problem := ahead(manifest):
        return problem
    if topics:
        lacking = sorted(topic for topic in topics if not holds(manifest, topic))
        return f"it does not hold all of {', '.join(lacking)}" if lacking else None
    return None if is_whole(manifest) else _narrow(manifest) or f"it is {scope(manifest)}"


def _narrow(manifest: Manifest) -> str | None:
    """Say that an archive is of chosen topics, each of them whole; None for every other set."""
    facts = manifest.facts
    if facts.get(EVIDENCE) or facts.get("limit") is not None or "topics" not in facts:
        return None
    return f"it is {scope(manifest)}"


def _topics(backup: BackupSet) -> int:
    return len(backup.manifest.facts["topics"])


def chosen(
    repository: Repository,
    kind: str,
    label: str = LATEST,
    *,
    topics: Collection[str] = (),
    origin: Origin = dict,
    typed: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> BackupSet:
    """Give the set of that label, which must hold `topics`, or by `latest` the newest that may be.

    What somebody names is taken, also what a recovery salvaged; but a set of another origin only
    when the id of that is `typed` too. Raises ConfigError or NoBackup.
    """
    if label == LATEST:
        return newest(repository, kind, topics=topics, origin=origin, say=say)
    manifest = (found := repository.get(label)).manifest
    if found.kind != kind:
        raise ConfigError(f"{label} is a backup of {found.kind}, expected one of {kind}")
    held = manifest.facts.get("topics", {})
    if lacking := sorted(topic for topic in topics if topic not in held):
        raise ConfigError(f"{label} does not hold {', '.join(lacking)}")
    for name, expected in origin().items():
        told = manifest.facts.get(name)
        if told is not None and str(told) not in {expected, typed}:
            raise ConfigError(
                f"{label}: its {name} is {told}, expected {expected}; to take it all the same, "
                f"type that too: --origin {told}"
            )
    for topic, why in manifest.facts.get(INCOMPLETE, {}).items():
        if topic in topics:
            say(f"{label} does not hold {topic} whole: {why}")
    if manifest.facts.get(EVIDENCE):
        say(f"{label} is no backup, but what {manifest.facts[EVIDENCE]} salvaged")
    return found
