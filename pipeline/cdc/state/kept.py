"""Readings of the state of CDC as backup sets: taken, found again, and carried on.

The history that an offset belongs to is nowhere in Connect: after a point-in-time recovery the same
LSN names other changes. So each set notes it, and hands it on to the next: an offset is of the
history on which it was first seen, until somebody says that its connector read every row anew.
"""

from collections.abc import Callable, Collection
from typing import Any

from pipeline.cdc.state.connect import Connector
from pipeline.cdc.state.parts import Part
from pipeline.cdc.state.read import read as read_now
from pipeline.cdc.state.reading import Reading
from pipeline.config import PipelineConfig
from pipeline.errors import BackupError, RestoreError, StoreError
from pipeline.repository import kinds
from pipeline.repository.sets import BackupSet, Repository
from pipeline.repository.store import HashedStream

KIND = kinds.SLOTS.name
OBJECT = "state.json"
WHOLE, PARTLY = "whole state", "what could be read"
_NEEDED = (Part.SERVER, Part.SLOTS)


def take(
    config: PipelineConfig,
    repository: Repository,
    progress: Callable[[str], None] = lambda _: None,
    *,
    reread: Collection[str] = (),
    gone: Collection[str] = (),
) -> BackupSet:
    """Read the state, and commit it as a set of kind slots.

    `reread` names connectors that read every row anew since the last set: their offsets are of the
    server's present history. `gone` names those that were removed on purpose. What could not be
    read is named in the set, which without its connectors does not count as the newest.

    Raises BackupError without the server's slots: that would be no backup of them.
    """
    reading = read_now(config)
    for missing in reading.misses(_NEEDED):
        raise BackupError(f"no backup of {KIND} was taken: {missing}")
    before = earlier(repository, progress)
    reading = with_histories(reading, before, first=True, reread=reread, gone=gone)
    taken = seal(repository, reading)
    for missing in reading.unread:
        progress(f"{taken.label}: NOT read: {missing}")
    return taken


def seal(repository: Repository, reading: Reading) -> BackupSet:
    """Commit a reading as a set."""
    with repository.begin(KIND) as draft:
        stored = draft.put(OBJECT, [reading.model_dump_json(indent=1).encode()])
        return draft.commit(_facts(reading), [stored])


def _facts(reading: Reading) -> dict[str, Any]:
    server = reading.server
    assert server is not None  # noqa: S101 - `take` refuses without it
    missing = {
        f"{one.part}{f' of {one.name}' if one.name else ''}": one.why for one in reading.unread
    }
    return {
        "system_identifier": server.system_identifier,
        "timeline": server.timeline,
        "server_version_num": server.version,
        "database": server.database,
        "lsn": str(server.flush_lsn),
        "scope": PARTLY if _lacks_connectors(reading) else WHOLE,
        kinds.INCOMPLETE: missing,
        "slots": [slot.name for slot in reading.slots],
        "publications": [f"{p.database}.{p.publication.name}" for p in reading.publications],
        "connectors": [connector.name for connector in reading.connectors],
    }


def _lacks_connectors(reading: Reading) -> bool:
    return any(one.part in {Part.CONNECTORS, Part.OFFSETS} for one in reading.unread)


def earlier(repository: Repository, say: Callable[[str], None] = lambda _: None) -> Reading | None:
    """Give the newest state that tells of slots and connectors, of whatever server, or None.

    Of another server too: that the address leads to another one is what it shall show. A set that
    cannot be read is said and passed over, or no backup would follow it.
    """
    for label in reversed(repository.labels(KIND)):
        try:
            reading = read(repository.get(label))
        except (BackupError, RestoreError, StoreError) as error:
            say(f"passed over {label}: {error}")
            continue
        if not _lacks_connectors(reading):
            return reading
        say(f"passed over {label}: it does not tell of every connector")
    return None


def read(backup: BackupSet) -> Reading:
    """Read the state of a set. Raises RestoreError unless it is what was committed."""
    if backup.kind != KIND:
        raise RestoreError(f"{backup.label}: expected a backup of {KIND}, found {backup.kind}")
    entry = next((one for one in backup.manifest.objects if one.key.endswith(OBJECT)), None)
    if entry is None:
        raise RestoreError(f"{backup.label} holds no {OBJECT}")
    with backup.store.open(entry.key) as stored:
        hashed = HashedStream(stored)
        content = hashed.read()
        if problem := hashed.damage(entry):
            raise RestoreError(f"{backup.label}: {problem}")
    try:
        return Reading.model_validate_json(content)
    except ValueError as error:
        raise RestoreError(f"{backup.label}: {OBJECT} is no state of CDC: {error}") from error


def with_histories(
    reading: Reading,
    before: Reading | None,
    *,
    first: bool = False,
    reread: Collection[str] = (),
    gone: Collection[str] = (),
) -> Reading:
    """Note of which history each offset is, and which connectors are there no more.

    Both as an earlier reading noted it. Without one nobody knows, but for the `first` set, which
    begins to note it: an offset that was moved since is still of the history it came from.
    """
    here = reading.server.history if reading.server else None

    def history(now: Connector) -> tuple[str, int] | None:
        then = before.known(now.name) if before else None
        if here is None or not now.offsets or (before is None and not first):
            return None
        carried = then.history if then and then.offsets and now.name not in reread else None
        return carried or here

    told = [c.model_copy(update={"history": history(c)}) for c in reading.connectors]
    names = {each.name for each in reading.connectors} | set(gone)
    missed = (*before.connectors, *before.absent) if before else ()
    absent = [each for each in missed if each.name not in names]
    if reading.misses((Part.CONNECTORS,), names):
        absent = list(before.absent) if before else []
    return reading.model_copy(update={"connectors": tuple(told), "absent": tuple(absent)})
