"""The contestants behind one protocol."""

from pathlib import Path
from typing import Protocol


class Peer(Protocol):
    """A tool with a repository of its own of the same source server."""

    name: str
    repository: Path

    def archive_lines(self) -> list[str]:
        """Shell lines that archive the segment `$1`."""

    def prepare(self) -> None:
        """What must be there before the first backup; the source server runs."""

    def back_up(self) -> None:
        """Take a full backup."""

    def expire(self) -> None:
        """Let go of all backups but the newest, and of the WAL that only they needed."""

    def verify(self) -> tuple[int, str]:
        """Look at the repository at rest: 0 where all is well, and what was said."""

    def restore(self, into: Path) -> None:
        """Bring the newest backup back, so that a start replays to the end of the archive."""
