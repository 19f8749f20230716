"""Before anything else: save what the damaged server still holds and the repository does not."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pipeline.postgres.wal.lsn import is_segment
from pipeline.repository.store import FolderStore, chunks_of

# what tells afterwards what happened, beside the WAL itself
_EVIDENCE = ("global/pg_control", "pg_replslot/*/state", "log/*", "current_logfiles")


def salvage(data: Path, store: FolderStore, recovery: str) -> dict[str, int]:
    """Copy unarchived WAL, control data, slot state and logs; return files and bytes saved.

    An absent data folder has nothing to give, and that is no error: it is the fault itself. A
    file that cannot be read is named, because it may be the only copy of acknowledged writes.
    """
    saved = bytes_saved = 0
    for path in _worth_saving(data, store):
        key = f"salvage/{recovery}/{path.relative_to(data).as_posix()}"
        with path.open("rb") as stream:
            bytes_saved += store.put(key, chunks_of(stream)).size
        saved += 1
    return {"files": saved, "bytes": bytes_saved}


def room_for(data: Path, store: FolderStore) -> int:
    """Count the bytes that would be saved now; of a server that runs some may be gone by then."""
    size = 0
    for path in _worth_saving(data, store):
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


def _worth_saving(data: Path, store: FolderStore) -> Iterator[Path]:
    archived = {key.removeprefix("wal/") for key in store.list("wal/")}
    for path in sorted((data / "pg_wal").glob("*")):
        wanted = is_segment(path.name) or path.suffix == ".history"
        if path.is_file() and wanted and path.name not in archived:
            yield path
    for pattern in _EVIDENCE:
        yield from (path for path in sorted(data.glob(pattern)) if path.is_file())
