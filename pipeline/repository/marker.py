"""The marker of a repository, and whose WAL it archives.

Below the mount point of a volume that is not mounted there is a folder too: what was archived into
it would be acknowledged, and be nowhere. So a place counts once `pipeline init` has marked it.
Imported for each segment that a server hands over, so it imports next to nothing.
"""

from __future__ import annotations

import os
import sys

from pipeline.errors import StoreError
from pipeline.repository.durable import Unfinished

MARKER, WAL_OF = "repository.json", "wal-of"
_LONG_HEADER = 40  # bytes; xlog_internal.h, XLogLongPageHeaderData
_PAGE_MAGIC, _INFO, _POSITION = slice(0, 2), slice(2, 4), slice(8, 16)
_SERVER, _SIZE = slice(24, 32), slice(32, 36)  # xlp_sysid, xlp_seg_size
_IS_LONG = 2  # XLP_LONG_HEADER, of xlp_info
_MAGIC = 0xD1  # the upper half of XLOG_PAGE_MAGIC, of every version


def refusal(root: str) -> str | None:
    """Tell why nothing may be written below the folder, or None.

    Earlier versions made no marker: there a repository is what holds something.
    """
    try:
        os.stat(f"{root}/{MARKER}")
    except (FileNotFoundError, NotADirectoryError):
        if _holds(f"{root}/sets") or _holds(f"{root}/wal"):
            return None
    except OSError as error:
        return str(error)
    else:
        return None
    return f"{root} has no {MARKER}. Is its volume mounted? `pipeline init` makes a new repository"


def make(root: str) -> bool:
    """Mark the folder as a repository; False where it is one. The folder is made if need be."""
    import json
    import secrets
    from datetime import UTC, datetime

    created = datetime.now(UTC).isoformat()
    content = {"id": secrets.token_hex(16), "format": 1, "created": created}
    return _published(root, MARKER, json.dumps(content).encode() + b"\n")


def of_another(root: str, server: str) -> str | None:
    """Note the server whose WAL the repository archives, or tell which other one was noted."""
    if (known := noted(root)) is None:
        _published(root, WAL_OF, server.encode())  # of two at a time the first one counts
        known = noted(root)
    if known == server:
        return None
    return (
        f"{root} archives the WAL of the server with system identifier {known}, this is WAL of "
        f"{server}: give that server a repository of its own. Where it took the other's place, as "
        f"by pg_upgrade: pipeline init --server {server}"
    )


def noted(root: str) -> str | None:
    """Tell whose WAL the repository archives; None before anything was pushed or backed up."""
    try:
        with open(f"{root}/{WAL_OF}", "rb") as stream:
            return stream.read().strip().decode()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"cannot read {WAL_OF!r} from {root}: {error}") from error


def replace_server(root: str, server: str) -> None:
    """Let the repository archive the WAL of that server from now on."""
    if noted(root) is not None:
        os.unlink(f"{root}/{WAL_OF}")
    of_another(root, server)


def header_of(segment: str) -> tuple[str, int, int] | None:
    """Read which server wrote a segment, from which position on, and how large segments are there.

    None for what does not begin as segments do.
    """
    with open(segment, "rb", 0) as stream:
        start = stream.read(_LONG_HEADER)
    magic, info, position, server, size = (
        int.from_bytes(start[part], sys.byteorder)
        for part in (_PAGE_MAGIC, _INFO, _POSITION, _SERVER, _SIZE)
    )
    if len(start) < _LONG_HEADER or magic >> 8 != _MAGIC or not info & _IS_LONG:
        return None
    return str(server), position, size


def _holds(folder: str) -> bool:
    try:
        with os.scandir(folder) as found:
            return next(found, None) is not None
    except OSError:
        return False


def _published(root: str, name: str, content: bytes) -> bool:
    try:
        with Unfinished(root, f"{root}/{name}") as file:
            file.write(content)
            published = file.publish()
        if published:
            os.chmod(f"{root}/{name}", 0o644)  # the server's owner reads what root has written
    except OSError as error:
        raise StoreError(f"cannot write {name!r} to {root}: {error}") from error
    return published
