"""A set of sets: one backup of every part, taken in the order in which together they are one.

The base backup comes first, for its WAL leads on to any later moment. Slots and source offsets come
before the topics, which then hold what they say was delivered; offsets of groups too, so that no
group is ahead of its records. The topics end behind the consistency point,
an LSN whose events have been delivered. What is registered or archived later is only more: a schema
is there before the record that names it, and WAL behind the point is replayed or left.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from pipeline.config import PipelineConfig
from pipeline.errors import BackupError, ObjectMissing, PipelineError, ServerError
from pipeline.postgres.wal.lsn import Lsn, segment_name
from pipeline.postgres.wal.receiver import ExpectedEnd
from pipeline.repository import kinds
from pipeline.repository.sets import MANIFEST, BackupSet, Repository
from pipeline.repository.store import read
from pipeline.wait import wait_until

KIND = kinds.ALL.name
OBJECT = "members.json"
BASE, SLOTS = kinds.BASE.name, kinds.SLOTS.name
OFFSETS, TOPICS, SCHEMAS = kinds.OFFSETS.name, kinds.TOPICS.name, kinds.SCHEMAS.name
NEEDED = {BASE, OFFSETS, TOPICS}
ARRIVES = timedelta(seconds=90)
"""Longer than a server waits that archives every minute (archive_timeout)."""

Taken = tuple[BackupSet, list[str]]
"""A set, and what it must not pass for."""
Part = Callable[[Mapping[str, BackupSet]], Taken]
"""Takes one part; it is told of those before it."""
Say = Callable[[str], None]


def take(
    config: PipelineConfig,
    repository: Repository,
    parts: Mapping[str, Part],
    say: Say = lambda _: None,
    *,
    arrives: timedelta = ARRIVES,
) -> Taken:
    """Take every part in the order given, wait for the WAL up to their point, and name them all.

    A part without which the rest is of use stops nothing, and is missed by name. Raises the error
    of any other that could not be taken; what was taken before it stands by itself.
    """
    with repository.begin(KIND) as draft:
        members, wrong = dict[str, BackupSet](), list[str]()
        for name, part in parts.items():
            say(f"{draft.label}: {name}")
            try:
                members[name], told = part(members)
            except PipelineError as error:
                if name in NEEDED:
                    raise
                wrong.append(f"there is no backup of {name}: {error}")
            else:
                wrong += [f"{members[name].label}: {line}" for line in told]
        facts = _facts(members)
        wrong += _not_one(members)
        if (missing := _wal_missing(config, members, arrives)) is not None:
            wrong.append(missing)
        facts |= {"wal_missing": missing, "loses": [*_loses(members)]}
        listed = json.dumps(_digests(repository, members), indent=2).encode()
        return draft.commit(facts, [draft.put(OBJECT, [listed])]), wrong


def problems(repository: Repository, together: BackupSet) -> Iterator[str]:
    """Tell which members are gone, or are others than were named."""
    named = json.loads(read(repository.store, together.prefix + OBJECT))
    for label, expected in named.items():
        try:
            found = _digest(repository, repository.get(label))
        except (BackupError, ObjectMissing) as error:
            yield f"{label}: {error}"
            continue
        if found != expected:
            yield f"{label}: expected a manifest with sha256 {expected}, found {found}"


def point_of(together: BackupSet) -> dict[str, Any]:
    """The consistency point of its topics; empty where none was found."""
    return together.manifest.facts["point"] or {}


def _facts(members: Mapping[str, BackupSet]) -> dict[str, Any]:
    told = {name: found.manifest.facts for name, found in members.items()}
    return {
        "members": {name: found.label for name, found in members.items()},
        "system_identifier": told[BASE]["system_identifier"],
        "cluster_id": told[TOPICS]["cluster_id"],
        "point": told[TOPICS]["consistency_point"]["point"],
        "caught_up": told[TOPICS]["consistency_point"].get("caught_up"),
    }


def _not_one(members: Mapping[str, BackupSet]) -> Iterator[str]:
    """Hold the members against the point at which they are one."""
    topics = members[TOPICS].manifest.facts
    reached = topics["consistency_point"]
    if (point := reached["point"]) is None:
        yield f"there is no consistency point: {reached['reason']}"
        return
    if reached["caught_up"] is not True:
        yield f"events up to {point['lsn']} may not be in the topics: {reached['reason']}"
    for name, fact in ((BASE, "end_lsn"), (SLOTS, "lsn")):
        if name in members:
            yield from _behind(members[name], fact, point)
    if members[OFFSETS].manifest.finished > datetime.fromisoformat(topics["decided"]):
        yield f"{members[OFFSETS].label} is newer than the ends of the topics"


def _behind(part: BackupSet, fact: str, point: Mapping[str, Any]) -> Iterator[str]:
    """Tell that a part is of another server or history, or of a later moment, than the point."""
    facts = part.manifest.facts
    for name in ("system_identifier", "timeline"):
        if str(facts[name]) != str(point[name]):
            yield f"{part.label} has {name} {facts[name]}, the point has {point[name]}"
    if Lsn.parse(facts[fact]) > Lsn.parse(point["lsn"]):
        yield f"{part.label} is of {facts[fact]}, behind the point at {point['lsn']}"


def _wal_missing(
    config: PipelineConfig, members: Mapping[str, BackupSet], within: timedelta
) -> str | None:
    """Wait until the repository holds the WAL up to the point; say so where it does not come."""
    facts, point = members[BASE].manifest.facts, _point(members)
    if point is None:
        return None
    until, size = Lsn.parse(point["lsn"]), int(facts["wal_segment_size"])
    last = segment_name(int(point["timeline"]), Lsn(until - 1), size)

    def missing() -> str | None:
        with suppress(ObjectMissing):
            end = ExpectedEnd.read(config.repository.path)
            if end.system_identifier == facts["system_identifier"] and end.lsn >= until:
                return None
        archived = config.repository.path / "wal" / last
        return None if archived.exists() else f"{last} is not archived, and nobody received it"

    try:
        wait_until(f"WAL up to the point at {until}", missing, within=within)
    except ServerError as error:
        return f"{error}. Run `pipeline wal receive`, or set archive_timeout"
    return None


def _loses(members: Mapping[str, BackupSet]) -> Iterator[str]:
    """Say what a recovery from this alone would not bring back."""
    topics, point = members[TOPICS].manifest.facts, _point(members)
    if point is None:
        yield "where database and topics agree is not known: rows are read again into the topics"
    else:
        yield f"the database: what was committed behind {point['lsn']} ({point['time']})"
    yield "topics that CDC feeds: nothing that the database holds; it is read again from there"
    yield f"other topics: what was produced after {topics['decided']}"
    read_on = f"{members[OFFSETS].manifest.started:%Y-%m-%d %H:%M:%S}Z"
    yield f"groups: what was committed after {read_on} is read a second time"
    for name in (SLOTS, SCHEMAS):
        if name not in members:
            yield f"{name}: everything that no other set holds"


def _point(members: Mapping[str, BackupSet]) -> dict[str, Any] | None:
    found: dict[str, Any] | None = members[TOPICS].manifest.facts["consistency_point"]["point"]
    return found


def _digests(repository: Repository, members: Mapping[str, BackupSet]) -> dict[str, str]:
    return {found.label: _digest(repository, found) for found in members.values()}


def _digest(repository: Repository, found: BackupSet) -> str:
    return hashlib.sha256(read(repository.store, found.prefix + MANIFEST)).hexdigest()
