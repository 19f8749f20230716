"""What PostgreSQL calls for each WAL segment: `push` as archive_command, `get` as restore_command.

    archive_command = 'pipeline-wal push /backup/repository %p'
    restore_command = 'pipeline-wal get /backup/recoveries/R/wal %f %p'

Started once for every segment, so it imports nothing beyond the standard library and the store.

Exit codes are a contract with the server (PostgreSQL manual, 25.3.1 and 25.3.4). `push` answers 0
only when the segment is durable in the repository, or was already there with the same content.
`get` answers 1 for "there is no such file", which ends recovery in an orderly way, and 200 for
"could not find out", which must stop the server: any code up to 125 would promote it early.
"""

import contextlib
import os
import shutil
import sys
from pathlib import Path
from types import TracebackType

DONE, ABSENT, REFUSED, FAILED = 0, 1, 1, 200
ARCHIVE = "wal/"


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Python itself would answer 1, which means "there is no such file"."""
    sys.__excepthook__(kind, error, trace)
    sys.stderr.flush()
    os._exit(FAILED)


if __package__ in {None, ""}:  # run by its path: the server's owner need not have it installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.excepthook = _uncaught

# not before the hook: half an installation fails here
from pipeline.errors import StoreError  # noqa: E402
from pipeline.store import FolderStore, chunks_of  # noqa: E402


def push(repository: Path, segment: Path) -> int:
    """Archive one file under its own name; never replace other content."""
    try:
        with segment.open("rb") as stream:
            FolderStore(repository).put(ARCHIVE + segment.name, chunks_of(stream))
    except (StoreError, OSError) as error:
        sys.stderr.write(f"pipeline-wal push {segment.name}: {error}\n")
        return REFUSED
    return DONE


def get(view: Path, name: str, into: Path) -> int:
    """Copy one file out of a recovery's view of the archive."""
    try:
        if not view.is_dir():
            raise NotADirectoryError(f"{view} is not there: was the repository unmounted?")
        if name not in {entry.name for entry in view.iterdir()}:
            return ABSENT
        shutil.copyfile(view / name, into)
    except OSError as error:
        sys.stderr.write(f"pipeline-wal get {name}: {error}\n")
        with contextlib.suppress(OSError):  # a folder in its place is told already
            into.unlink(missing_ok=True)
        return FAILED
    return DONE


def main(arguments: list[str] | None = None) -> int:
    """Dispatch; a wrong call is a failure, never "absent"."""
    sys.excepthook = _uncaught
    match arguments if arguments is not None else sys.argv[1:]:
        case ["push", repository, segment]:
            return push(Path(repository), Path(segment))
        case ["get", view, name, into]:
            return get(Path(view), name, Path(into))
    sys.stderr.write((__doc__ or "") + "\n")
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
