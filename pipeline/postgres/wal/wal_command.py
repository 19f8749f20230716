"""What PostgreSQL calls for each WAL segment: `push` as archive_command, `get` as restore_command.

    archive_command = 'pipeline-wal push /backup/repository %p'
    restore_command = 'pipeline-wal get /backup/recoveries/R/wal %f %p'

Started once for every segment, and replay waits for each: so nothing is imported that is not
needed. `get` needs os and sys alone, and starts in a quarter of the time that the store takes.

Exit codes are a contract with the server (PostgreSQL manual, 25.3.1 and 25.3.4). `push` answers 0
only when the segment is durable in the repository, or was already there with the same content.
`get` answers 1 for "there is no such file", which ends recovery in an orderly way, and 200 for
"could not find out", which must stop the server: any code up to 125 would promote it early.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as typing's own, which takes 3 ms to import
if TYPE_CHECKING:
    from types import TracebackType

DONE, ABSENT, REFUSED, FAILED = 0, 1, 1, 200
ARCHIVE = "wal/"
_BLOCK = 1 << 24
_DIGITS, _LABEL = frozenset("0123456789ABCDEF"), b"START WAL LOCATION"


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Python itself would answer 1, which means "there is no such file"."""
    sys.__excepthook__(kind, error, trace)
    sys.stderr.flush()
    os._exit(FAILED)


def push(repository: str | os.PathLike[str], segment: str | os.PathLike[str]) -> int:
    """Archive one file under its own name; never replace other content."""
    if __package__ in {None, ""}:  # run by its path: the server's owner need not have it installed
        sys.path.insert(0, os.path.abspath(f"{__file__}/../../../.."))
    from pipeline.errors import ObjectExists, StoreError
    from pipeline.repository import marker

    name, root = os.path.basename(segment), os.path.abspath(repository)
    problem: Exception
    try:
        if (why := marker.refusal(root)) or (why := _unfit(root, name, os.fspath(segment))):
            problem = StoreError(why)
        elif _archived(root, os.fspath(segment), f"{root}/{ARCHIVE}{name}"):
            return DONE
        else:
            problem = ObjectExists(ARCHIVE + name, root)
    except (OSError, StoreError) as error:
        problem = error
    sys.stderr.write(f"pipeline-wal push {name}: not archived in {root}: {problem}\n")
    return REFUSED


def _archived(root: str, segment: str, target: str) -> bool:
    """Make a file durable as `target`; False when other content stands there."""
    from pipeline.repository.durable import Unfinished, same

    with open(segment, "rb", 0) as stream, Unfinished(root, target) as file:
        file.copy(stream.fileno())
        return file.publish() or same(segment, target)


def _unfit(root: str, name: str, file: str) -> str | None:
    """Tell why a file is none that the server of this repository archives by that name, or None."""
    stem, _, kind = name.partition(".")
    told = {8: kind == "history", 24: kind in {"", "partial"} or kind.endswith(".backup")}
    if not _DIGITS.issuperset(stem) or not told.get(len(stem)):
        return "a server archives no file of that name"
    if kind == "history":
        return None if _begins(file)[:1].isdigit() else "it is no history of a timeline"
    if kind.endswith(".backup"):
        return None if _begins(file).startswith(_LABEL) else "it is no history of a backup"
    return _unlike_segment(root, stem, file)


def _unlike_segment(root: str, name: str, file: str) -> str | None:
    """Tell what a file that is named as a segment lacks of one, or None."""
    from pipeline.repository import marker

    if (header := marker.header_of(file)) is None:
        return "it does not begin as a segment of WAL"
    server, position, size = header
    if (found := os.stat(file).st_size) != size:
        return f"it has {found} bytes, expected {size} by its header"
    if position != (named := (int(name[8:16], 16) << 32) + int(name[16:], 16) * size):
        return f"it begins at {position:#x}, expected {named:#x} by its name"
    return marker.of_another(root, server)


def _begins(file: str) -> bytes:
    with open(file, "rb", 0) as stream:
        return stream.read(len(_LABEL))


def get(view: str | os.PathLike[str], name: str, into: str | os.PathLike[str]) -> int:
    """Copy one file out of a recovery's view of the archive.

    A copy, never a link: the server renames what it got into its pg_wal, and recycles it later by
    writing other WAL into the same file, which a link would do to the repository's own.
    """
    source = os.path.join(view, name)
    try:
        # only a folder that can be read can say that a name is not in it
        if not os.path.lexists(source) and name not in os.listdir(os.path.dirname(source)):
            return ABSENT
        _copy(source, into)
    except OSError as error:
        sys.stderr.write(f"pipeline-wal get {name}: {error}\n")
        if os.path.isfile(into):
            os.unlink(into)
        return FAILED
    return DONE


def _copy(source: str, into: str | os.PathLike[str]) -> None:
    """Copy inside of the kernel; what was promised by the size must have come."""
    with open(source, "rb", 0) as reading, open(into, "wb", 0) as writing:
        expected, copied = os.fstat(reading.fileno()).st_size, 0
        while count := os.sendfile(writing.fileno(), reading.fileno(), copied, _BLOCK):
            copied += count
    if copied != expected:
        raise OSError(f"{source} has {expected} bytes, {copied} could be read")


def main(arguments: list[str] | None = None) -> int:
    """Dispatch; a wrong call is a failure, never "absent"."""
    sys.excepthook = _uncaught
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["push"] and len(given) == 3:
        return push(*given[1:])
    if given[:1] == ["get"] and len(given) == 4:
        return get(*given[1:])
    sys.stderr.write((__doc__ or "") + "\n")
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
