"""How old the newest backup is that stands for everything of its kind."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from checks.check import Observation
from pipeline.errors import NoBackup
from pipeline.repository import kinds
from pipeline.repository.sets import Repository


def recent(sets: Repository, kind: str, allowed: timedelta) -> Iterator[Observation]:
    """Judge the newest set of everything: a part of it, or one from the future, is none."""
    misdated = [
        f"{found.label}: {problem}"
        for found in sets.sets(kind, told_elsewhere)
        if (problem := kinds.ahead(found.manifest)) is not None
    ]
    try:
        newest = kinds.newest(sets, kind)
    except NoBackup as none:
        yield Observation(kind, f"there is none: {none}")
        return
    age = datetime.now(UTC) - newest.manifest.finished
    late = [f"{newest.label} is {age} old, planned are at most {allowed}"] if age > allowed else []
    yield Observation(kind, "; ".join([*late, *misdated]) or None)


def told_elsewhere(_label: str, _why: str) -> None:
    """A damaged manifest is named by other checks, and is no backup of today."""
