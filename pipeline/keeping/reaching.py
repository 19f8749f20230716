"""To which moments every part of the pipeline can come back together, and what limits each.

Two answers: at the points of the sets of sets, where all parts agree; and the newest moment of each
part, to which a recovery brings the database, and the topics that CDC feeds by reading it again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from pipeline.config import PipelineConfig
from pipeline.errors import BackupError, ObjectMissing
from pipeline.keeping import together
from pipeline.postgres.base.reach import Reach, reach
from pipeline.postgres.wal.lsn import Lsn
from pipeline.repository import kinds
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import FolderStore

NEWEST = "the newest moment"
AGAIN = "topics that CDC feeds"
NEVER = "never backed up"
_PARTS = {
    kinds.TOPICS.name: "other topics",
    kinds.OFFSETS.name: "groups",
    kinds.SLOTS.name: "slots and connectors",
    kinds.SCHEMAS.name: "schema registry",
}


@dataclass(frozen=True)
class Moment:
    """Where every part stands after a recovery to it; `until` is None where it does not lead there.

    `parts` says of each from what it comes back, `limits` what keeps it from standing there.
    """

    name: str
    until: datetime | None
    lsn: str | None
    parts: Mapping[str, str]
    limits: tuple[str, ...] = field(default=())

    def lines(self) -> Iterator[str]:
        """Yield the answer for people."""
        where = f"LSN {self.lsn}, " if self.lsn else ""
        yield f"{self.name}  {where}{self.until.isoformat() if self.until else 'NOWHERE'}"
        for part, told in self.parts.items():
            yield f"  {part:<22}{told}"
        for limit in self.limits:
            yield f"  LIMIT                 {limit}"

    def as_facts(self) -> dict[str, Any]:
        """Plain values, for programs."""
        return asdict(self) | {"until": self.until.isoformat() if self.until else None}


def everything(config: PipelineConfig) -> Iterator[Moment]:
    """Answer for each set of sets, oldest first, then for the newest moment."""
    repository, unread = Repository(FolderStore(config.repository.path)), dict[str, str]()
    databases = reach(config, unread.__setitem__)
    for label in repository.labels(together.KIND):
        try:
            yield _at_point(repository, repository.get(label), databases)
        except (BackupError, ObjectMissing) as error:
            yield Moment(label, None, None, {}, (str(error),))
    yield _newest(repository, databases, unread)


def _at_point(repository: Repository, found: BackupSet, databases: list[Reach]) -> Moment:
    point, members = together.point_of(found), dict(found.manifest.facts["members"])
    limits = [*together.problems(repository, found)]
    base = next((one for one in databases if one.backup == members[together.BASE]), None)
    if not point:
        limits.append("its parts have no consistency point: they do not agree at any moment")
    elif base is None or not base.restorable:
        limits.append(f"{members[together.BASE]} cannot be restored")
    elif not base.first_lsn <= Lsn.parse(point["lsn"]) <= base.last_lsn:
        told = f"the WAL leads from {base.first_lsn} to {base.last_lsn}: {base.reason}"
        limits.append(f"{told}; the point is at {point['lsn']}")
    if point and found.manifest.facts["caught_up"] is not True:
        limits.append("it is UNKNOWN whether the topics hold all events up to the point")
    reached = None if limits or not point else datetime.fromisoformat(point["time"])
    parts = {_PARTS.get(name, "database"): label for name, label in members.items()}
    return Moment(found.label, reached, point.get("lsn"), parts, tuple(limits))


def _newest(repository: Repository, databases: list[Reach], unread: Mapping[str, str]) -> Moment:
    """Each part by its newest backup; what lies behind that is the limit of the part."""
    best = max((one for one in databases if one.restorable), key=_far, default=None)
    parts, limits = dict[str, str](), [f"{label}: {why}" for label, why in unread.items()]
    if best is None:
        limits.append("database: no base backup can be restored")
    else:
        until = best.until.isoformat()
        parts["database"] = f"{until}  {best.backup} and its WAL to {best.last_lsn}"
        parts[AGAIN] = f"{until}  read again from the database: the last state of each row"
        if not best.complete:
            limits.append(f"database: {best.reason}")
    for kind, name in _PARTS.items():
        try:
            found = kinds.newest(repository, kind)
        except ObjectMissing:
            parts[name] = NEVER
            limits.append(f"{name}: {NEVER}")
            continue
        except BackupError as error:
            parts[name] = "UNKNOWN"
            limits.append(f"{name}: {error}")
            continue
        stands = _stands(found)
        parts[name] = f"{stands.isoformat()}  {found.label}"
        if best is not None and stands < best.until:
            limits.append(f"{name}: nothing is known of {best.until - stands} before that moment")
    reached, lsn = (best.until, str(best.last_lsn)) if best else (None, None)
    return Moment(NEWEST, reached, lsn, parts, tuple(limits))


def _far(one: Reach) -> tuple[datetime, str]:
    return one.until, one.backup


def _stands(found: BackupSet) -> datetime:
    """Up to which moment a set tells: the decision of its ends, else its beginning."""
    decided = found.manifest.facts.get("decided")
    return datetime.fromisoformat(decided) if decided else found.manifest.started
