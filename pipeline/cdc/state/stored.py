"""What a stored source offset of Debezium says, whichever version or hand wrote it."""

from collections.abc import Mapping
from typing import Any

from pipeline.postgres.wal.lsn import Lsn

Offset = Mapping[str, Any]
_POSITIONS = ("lsn_commit", "lsn_proc", "lsn")
"""The first is what is delivered for certain; `lsn` may point into the next transaction."""
_ENDED = ("snapshot_completed", "last_snapshot_record")


def position(offset: Offset) -> Lsn | None:
    """Give the end of the last whole transaction, also where it is text."""
    told = next((offset[one] for one in _POSITIONS if offset.get(one)), None)
    if isinstance(told, int) and not isinstance(told, bool):
        return Lsn(told)
    if isinstance(told, str) and told.isdecimal():
        return Lsn(int(told))
    try:
        return Lsn.parse(told)  # type: ignore[arg-type]  # anything: JSON
    except (TypeError, ValueError):
        return None


def snapshotting(offset: Offset) -> bool:
    """Whether a snapshot is under way; older versions tell of its last record instead."""
    ended = any(_is_true(offset.get(one)) for one in _ENDED)
    return _is_true(offset.get("snapshot")) and not ended


def textual(offset: Offset) -> bool:
    """Whether a position is text, as somebody may have patched it: Debezium takes numbers."""
    return any(isinstance(offset.get(one), str) for one in _POSITIONS)


def _is_true(told: object) -> bool:
    return bool(told) and str(told).lower() != "false"
